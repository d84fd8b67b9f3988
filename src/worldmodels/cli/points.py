"""What one combination of a sweep makes of params.yaml: checked as DVC will write it, before hours of work."""

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from worldmodels.cli.folder import nearest
from worldmodels.errors import ParamsError
from worldmodels.params import PARAMS_FILE, load_yaml
from worldmodels.project import Project, load_project
from worldmodels.storage.layout import STAGES


def check_point(root: Path, settings: Sequence[str]) -> Project:
    """Return the params that ``dvc exp run --set-param`` makes of these settings.

    DVC's own code writes them into a copy of params.yaml, so that what is checked is what the stages read.

    Raises:
        ParamsError: naming every problem.
    """
    load_yaml(root / PARAMS_FILE)  # with its own message
    told = " ".join(setting.removeprefix("++") for setting in settings)
    with tempfile.TemporaryDirectory() as place:
        there = Path(place) / PARAMS_FILE
        shutil.copy(root / PARAMS_FILE, there)
        _set(there, settings, told)
        try:
            return load_project(there)
        except ParamsError as error:
            raise ParamsError(f"{told}: {str(error).replace(str(there), str(PARAMS_FILE))}") from None


def _set(path: Path, settings: Sequence[str], told: str) -> None:
    from dvc.utils.hydra import apply_overrides, to_hydra_overrides

    try:
        several = any(override.is_sweep_override() for override in to_hydra_overrides(list(settings)))
        if not several:
            apply_overrides(path, list(settings))
    except Exception as error:  # hydra, omegaconf and ruamel each have their own
        reason = str(error.__cause__ or error).strip().splitlines() or [type(error).__name__]
        raise ParamsError(f"{told}: DVC cannot set this ({reason[0]}).") from None
    if several:
        raise ParamsError(f"{told}: a value must be one value; write several with commas between them.")


def check_targets(project: Project, targets: Sequence[str]) -> list[str]:
    """Return the agents whose scores these targets make; no targets are all.

    Raises:
        ParamsError: a target is no stage, or is of a key that is not in params.yaml.
    """
    scored: list[str] = []
    for target in targets or ["evaluate"]:
        stage, mark, key = target.partition("@")
        if stage not in STAGES:
            raise ParamsError(f"there is no stage `{target}`.{nearest(stage, STAGES)}")
        keys = list(getattr(project, STAGES[stage])) if STAGES[stage] else []
        if mark and key not in keys:
            raise ParamsError(f"there is no stage `{target}`.{nearest(target, [f'{stage}@{each}' for each in keys])}")
        scored += ([key] if mark else keys) if stage == "evaluate" else []
    return list(dict.fromkeys(scored))
