"""``wm preset`` and ``wm check``: which params are in force; ``validated`` checks params that are not yet."""

import io
import tempfile
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worldmodels.cli.folder import nearest
from worldmodels.errors import ParamsError
from worldmodels.params import PARAMS_FILE, load_yaml
from worldmodels.storage.layout import NO_STUDY, STAGES

if TYPE_CHECKING:
    from worldmodels.project import Project

WIDTH = 160
MOST_NAMED = 6
"""Agents that ``wm check`` names."""
FOLDERS = {"preset": ("presets", "presets/examples"), "study": ("presets/studies",)}
"""Where presets and studies are."""


def use_preset(root: Path, name: str, studies: Sequence[str], *, force: bool) -> str:
    """Write a preset, with studies laid over it, to params.yaml; return what was done.

    Raises:
        ParamsError: there is no such preset or study, they do not fit each other, or params.yaml holds edits and ``force``
            is not given.
    """
    whole, command = "+".join([name, *studies]), " ".join(["wm preset", name, *(f"--study {study}" for study in studies)])
    content = preset_file(root, name).read_bytes()
    if studies:
        from ruamel.yaml import YAML

        yaml, written = YAML(), io.StringIO()
        yaml.default_flow_style, yaml.width = None, WIDTH
        yaml.representer.ignore_aliases = lambda _: True
        yaml.dump(_composed(root, name, studies), written)
        content = f"# Written by `{command}`; what the keys mean: presets/quick.yaml.\n\n{written.getvalue()}".encode()
        validated(lambda path: path.write_bytes(content), whole)
    target = root / PARAMS_FILE
    edits = _edits(root, target) if target.is_file() and not force else ""
    if edits:
        raise ParamsError(f"{target} holds edits that no preset has ({edits}). Commit or copy them, then `{command} --force`.")
    from worldmodels.storage.files import write_bytes

    write_bytes(target, content)
    return f"{target} is now the preset {whole}. `make repro` runs it; `wm check` validates edits."


def files_of(root: Path, kind: str) -> list[Path]:
    """Return the files of all presets or studies."""
    return [path for folder in FOLDERS[kind] for path in sorted((root / folder).glob("*.yaml"))]


def check_params(root: Path) -> str:
    """Validate the whole params file; return what it holds, and about how long it takes on machines whose rates are known.

    Raises:
        ParamsError: params are wrong; the message names every problem.
        ArtifactError: the table of rates is damaged, or a recording is.
    """
    from worldmodels.cli.recordings import look, summary
    from worldmodels.cli.side_by_side import games_at_a_time
    from worldmodels.compute.cores import cores
    from worldmodels.forecast import RATES, forecast, read_rates
    from worldmodels.project import load_project

    project = load_project(root / PARAMS_FILE)
    recorded = look(root, project)
    chain = [key for key, agent in project.agents.items() if agent.study == NO_STUDY]
    studies = [agent.study for agent in project.agents.values() if agent.study != NO_STUDY]
    told = [", ".join([*(["..."] if len(chain) > MOST_NAMED else []), *chain[-MOST_NAMED:]])] if chain else []
    told += [f"study {study}: {studies.count(study)}" for study in dict.fromkeys(studies)]
    counts = f"{len(project.world_models)} world models, {len(project.agents)} agents ({'; '.join(told)})"
    lines = [f"{root / PARAMS_FILE} is valid: preset {project.preset}, {counts}."]
    lines += [summary(key, found) for key, found in recorded.items()]
    if project.compute.threads > cores():
        lines.append(f"note: compute.threads is {project.compute.threads}, and this machine has {cores()} cores.")
    frames = {key: found.frames for key, found in recorded.items()}
    for hardware, rates in read_rates(root / RATES).items():
        lines += [
            "",
            f"A run from nothing on {hardware} takes about:",
            forecast_table(project, forecast(project, rates, frames)),
        ]
    if games_at_a_time(project) > 1:
        lines += ["", "`make repro` computes the games side by side here, a column on each core."]
    return "\n".join(lines)


def forecast_table(project: "Project", seconds: Mapping[str, float]) -> str:
    """Return how long the stages of each environment take, as text.

    ``seconds``: of each stage, as ``forecast`` returns them.
    """
    from worldmodels.forecast import span
    from worldmodels.report.table import align

    sums = defaultdict[tuple[str, str], float](float)
    for called, each in seconds.items():
        stage, _, key = called.partition("@")
        keyed: Any = getattr(project, STAGES[stage] or "environments")
        for row in (stage, "all"):
            sums[row, key if isinstance(keyed, list) else keyed[key].env] += each
    rows = [stage for stage in STAGES if any(called.startswith(f"{stage}@") for called in seconds)] + ["all"]
    columns = project.environments
    cells = [["stage", *columns], *([row, *(span(sums[row, name]) for name in columns)] for row in rows)]
    return align(cells, right=range(1, len(columns) + 1))


def validated(write: Callable[[Path], object], name: str) -> "Project":
    """Return the params that ``write`` makes of an empty file. ``name`` is what a message calls them.

    Raises:
        ParamsError: params are wrong; the message names every problem.
    """
    from worldmodels.project import load_project

    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / PARAMS_FILE
        write(path)
        try:
            return load_project(path)
        except ParamsError as error:
            raise ParamsError(f"{name}: {str(error).replace(str(path), str(PARAMS_FILE))}") from None


def _composed(root: Path, name: str, studies: Sequence[str]) -> dict[str, Any]:
    """Return a preset with studies laid over it.

    Raises:
        ParamsError: a study is not there, is named twice, needs what the preset lacks, or says something else than it.
    """
    if len(set(studies)) < len(studies):
        raise ParamsError("each study can be added once.")
    data = load_yaml(preset_file(root, name))
    for study in studies:
        over = load_yaml(preset_file(root, study, "study"))
        models = {**(data.get("world_models") or {}), **(over.get("world_models") or {})}
        lacking = [f"`{key}`" for key in over if key not in data]
        lacking += [
            f"`world_models.{agent['world_model']}`, which `agents.{key}` needs"
            for key, agent in (over.get("agents") or {}).items()
            if agent["world_model"] not in models
        ]
        if lacking:
            raise ParamsError(f"the study {study} does not fit the preset {name}, which has no {lacking[0]}.")
        try:
            data = merge(data, over)
        except ParamsError as error:
            raise ParamsError(f"the study {study} does not fit the preset {name}: {error}") from None
    return data | {"preset": "+".join([name, *studies])}


def merge(base: Mapping[str, Any], over: Mapping[str, Any], where: str = "") -> dict[str, Any]:
    """Return ``base`` with what ``over`` adds; mappings merge deeply.

    >>> merge({"a": {"b": 1}, "c": [2]}, {"a": {"d": 3}})
    {'a': {'b': 1, 'd': 3}, 'c': [2]}

    Raises:
        ParamsError: a key is in both with different values.
    """
    merged = dict(base)
    for key, value in over.items():
        there = merged.setdefault(key, value)
        if isinstance(there, dict) and isinstance(value, dict):
            merged[key] = merge(there, value, f"{where}{key}.")
        elif there != value:
            raise ParamsError(f"`{where}{key}` is there already and is not the same.")
    return merged


def preset_file(root: Path, name: str, kind: str = "preset") -> Path:
    """Return the file of a preset or a study; ParamsError if there is none."""
    files = {path.stem: path for path in files_of(root, kind)}
    if not files:
        raise ParamsError(f"there is no {kind} here: run `wm` inside a clone of the project.")
    if name not in files:
        raise ParamsError(f"there is no {kind} `{name}`.{nearest(name, files)}")
    return files[name]


def _edits(root: Path, target: Path) -> str:
    """Return up to three dotted keys by which a params file differs from the nearest preset; empty if from none."""
    try:
        mine = load_yaml(target)
    except ParamsError:
        return "it is not valid YAML"
    presets = [load_yaml(path) for path in files_of(root, "preset")]
    name, *studies = str(mine.get("preset")).split("+")
    if studies:
        with suppress(ParamsError):  # presets or studies that are here no more
            presets.append(_composed(root, name, studies))
    keys = min((_differences(mine, preset) for preset in presets), key=len)
    return ", ".join(keys[:3]) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")


def _differences(one: Any, other: Any, key: str = "") -> list[str]:
    """Return the dotted keys at which two params differ; a key that only one of them has is one."""
    if isinstance(one, dict) and isinstance(other, dict):
        missing, names = object(), dict.fromkeys([*one, *other])
        parts = [(one.get(name, missing), other.get(name, missing), f"{key}.{name}" if key else str(name)) for name in names]
        return [difference for part in parts for difference in _differences(*part)]
    return [] if one == other else [key]
