"""``wm preset`` and ``wm check``: which params are in force."""

import io
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worldmodels.cli.folder import nearest
from worldmodels.errors import ParamsError
from worldmodels.params import PARAMS_FILE, load_yaml

if TYPE_CHECKING:
    from worldmodels.project import Project

PRESETS, STUDIES = Path("presets"), Path("presets/studies")
WIDTH = 160


def preset_files(root: Path) -> dict[str, Path]:
    """Return the presets by name."""
    return {path.stem: path for path in sorted((root / PRESETS).glob("*.yaml"))}


def study_files(root: Path) -> dict[str, Path]:
    """Return the studies by name."""
    return {path.stem: path for path in sorted((root / STUDIES).glob("*.yaml"))}


def use_preset(root: Path, name: str, studies: Sequence[str], *, force: bool) -> str:
    """Write a preset, with studies laid over it, to params.yaml; return what was done.

    Raises:
        ParamsError: there is no such preset or study, they do not fit each other, or params.yaml holds edits and ``force``
            is not given.
    """
    text = _text(root, name, studies)
    target = root / PARAMS_FILE
    if target.is_file() and not force:
        edits = _edits(root, target)
        if edits:
            again = " ".join(["wm preset", name, *(f"--study {study}" for study in studies), "--force"])
            raise ParamsError(f"{target} holds edits that no preset has ({edits}). Commit or copy them, then `{again}`.")
    from worldmodels.storage.files import write_bytes

    write_bytes(target, text.encode())
    return f"{target} is now the preset {'+'.join([name, *studies])}. `make repro` runs it; `wm check` validates edits."


def check_params(root: Path) -> str:
    """Validate the whole params file; return what it holds, and how long it takes if that was measured.

    Raises:
        ParamsError: naming every problem.
    """
    from worldmodels.project import load_project

    project = load_project(root / PARAMS_FILE)
    counts = f"{len(project.world_models)} world models, {len(project.agents)} agents ({_shortened(project)})"
    lines = [f"{root / PARAMS_FILE} is valid: preset {project.preset}, {counts}."]
    for measured in project.measured:
        parts = "; ".join(f"{part} {minutes:g} min" for part, minutes in measured.minutes.items())
        lines.append(f"measured on {measured.hardware}: {parts}")
    from worldmodels.compute.cores import cores

    if project.compute.threads > cores():
        lines.append(f"note: compute.threads is {project.compute.threads}, and this machine has {cores()} cores.")
    return "\n".join(lines)


def merge(base: Mapping[str, Any], over: Mapping[str, Any], where: str = "") -> dict[str, Any]:
    """Return ``base`` with what ``over`` adds; mappings merge deeply.

    >>> merge({"a": {"b": 1}, "c": [2]}, {"a": {"d": 3}})
    {'a': {'b': 1, 'd': 3}, 'c': [2]}

    Raises:
        ParamsError: a key is in both with different values.
    """
    merged = {key: _copy(value) for key, value in base.items()}
    for key, value in over.items():
        path = f"{where}.{key}" if where else str(key)
        there = merged.get(key)
        if isinstance(there, dict) and isinstance(value, dict):
            merged[key] = merge(there, value, path)
        elif key in merged and there != value:
            raise ParamsError(f"`{path}` is there already and is not the same.")
        else:
            merged[key] = _copy(value)
    return merged


def _copy(node: Any) -> Any:
    """Return a copy in which nothing is shared, so that it is written without anchors."""
    if isinstance(node, dict):
        return {key: _copy(value) for key, value in node.items()}
    return [_copy(value) for value in node] if isinstance(node, list) else node


def _text(root: Path, name: str, studies: Sequence[str]) -> str:
    """Return what params.yaml says for a preset with studies."""
    path = _known(preset_files(root), name, "preset")
    if not studies:
        return path.read_text(encoding="utf-8")
    data = _composed(root, name, studies)
    from ruamel.yaml import YAML

    yaml, written = YAML(), io.StringIO()
    yaml.default_flow_style, yaml.width = None, WIDTH
    yaml.dump(data, written)
    command = " ".join(["wm preset", name, *(f"--study {study}" for study in studies)])
    text = f"# Written by `{command}`; what the keys mean: {PRESETS}/quick.yaml.\n\n{written.getvalue()}"
    _check(text, "+".join([name, *studies]))
    return text


def _composed(root: Path, name: str, studies: Sequence[str]) -> dict[str, Any]:
    """Return a preset with studies laid over it.

    Raises:
        ParamsError: a study is not there, is named twice, needs what the preset lacks, or says something else than it.
    """
    if len(set(studies)) < len(studies):
        raise ParamsError("each study can be added once.")
    data = load_yaml(_known(preset_files(root), name, "preset"))
    for study in studies:
        over = load_yaml(_known(study_files(root), study, "study"))
        lacking = [f"`{key}`" for key in over if key not in data]
        for key, agent in (over.get("agents") or {}).items():
            model, named = agent["world_model"], {**(data.get("world_models") or {}), **(over.get("world_models") or {})}
            lacking += [f"`world_models.{model}`, which `agents.{key}` needs"] if model not in named else []
        if lacking:
            raise ParamsError(f"the study {study} does not fit the preset {name}, which has no {lacking[0]}.")
        try:
            data = merge(data, over)
        except ParamsError as error:
            raise ParamsError(f"the study {study} does not fit the preset {name}: {error}") from None
    return data | {"preset": "+".join([name, *studies])}


def _check(text: str, name: str) -> None:
    """Validate what is to be written to params.yaml."""
    from worldmodels.project import load_project

    with tempfile.TemporaryDirectory() as place:
        there = Path(place) / PARAMS_FILE
        there.write_text(text, encoding="utf-8")
        try:
            load_project(there)
        except ParamsError as error:
            raise ParamsError(f"{name}: {str(error).replace(str(there), str(PARAMS_FILE))}") from None


def _known(files: Mapping[str, Path], name: str, kind: str) -> Path:
    if not files:
        raise ParamsError(f"there is no {kind} here: run `wm` inside a clone of the project.")
    if name not in files:
        raise ParamsError(f"there is no {kind} `{name}`.{nearest(name, files)}")
    return files[name]


def _shortened(project: "Project", most: int = 6) -> str:
    """Return the last agents of the chain, and how many belong to studies."""
    from worldmodels.project import NO_STUDY

    chain = [key for key, agent in project.agents.items() if agent.study == NO_STUDY]
    studies = dict.fromkeys(agent.study for agent in project.agents.values() if agent.study != NO_STUDY)
    told = [", ".join([*(["..."] if len(chain) > most else []), *chain[-most:]])]
    told += [f"study {study}: {sum(agent.study == study for agent in project.agents.values())}" for study in studies]
    return "; ".join(each for each in told if each)


def _edits(root: Path, target: Path) -> str:
    """Return up to three dotted keys by which a params file differs from the nearest preset; empty if from none."""
    try:
        mine = load_yaml(target)
    except ParamsError:
        return "it is not valid YAML"
    presets = [load_yaml(path) for path in preset_files(root).values()]
    name, *studies = str(mine.get("preset")).split("+")
    if studies:
        with suppress(ParamsError):  # presets or studies that are here no more
            presets.append(_composed(root, name, studies))
    differences = [_differing(_flat(mine), _flat(preset)) for preset in presets]
    keys = min(differences, key=len)
    return ", ".join(keys[:3]) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")


def _differing(mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    missing = object()
    return sorted(key for key in mine.keys() | theirs.keys() if mine.get(key, missing) != theirs.get(key, missing))


def _flat(node: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in node.items():
        below = isinstance(value, dict) and value
        flat |= _flat(value, f"{prefix}{name}.") if below else {f"{prefix}{name}": value}
    return flat
