"""What a ``dvc repro`` still has to do: from its command line, dvc.yaml, dvc.lock and params.yaml.

To load DVC and ask it would take longer than a short stage. What this does not understand is an error, and nothing is said.
"""

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import yaml

from worldmodels.compute.lifeline import callers
from worldmodels.params import PARAMS_FILE
from worldmodels.tracking.dvclock import Entry, artifact_hash, entry_of, same_params

HARMLESS = ("--wait-for-lock", "-q", "--quiet", "-v", "--verbose", "--pull", "--allow-missing", "--no-run-cache")
"""Options of DVC, before and after ``repro``, that do not change which stages it covers."""


class Plan(NamedTuple):
    """The stages of a ``dvc repro``, as DVC calls them."""

    covered: list[str]  # all that it looks at
    left: list[str]  # those that it has still to run, the present one among them; fewer if DVC finds results in its cache


@dataclass(frozen=True)
class Step:
    """A stage of dvc.yaml, with its names filled in."""

    cmd: str
    deps: tuple[str, ...]
    outs: tuple[str, ...]


def asked_for() -> list[str] | None:
    """Return the targets of the ``dvc repro`` that runs this process, none for all; None if it is run by something else."""
    if "DVC_STAGE" not in os.environ:
        return None
    commands = (psutil.Process(pid).cmdline() for pid in callers())
    return next((targets for command in commands if (targets := targets_of(command)) is not None), None)


def targets_of(command: Sequence[str]) -> list[str] | None:
    """Return the targets of a command line, none for all; None if it is not a plain ``dvc repro``.

    >>> targets_of(["/bin/python", "/bin/dvc", "repro", "evaluate@doom-2", "-q"]), targets_of(["dvc", "repro"])
    (['evaluate@doom-2'], [])
    >>> targets_of(["dvc", "repro", "--force"]), targets_of(["dvc", "exp", "run"]), targets_of(["make", "repro"])
    (None, None, None)
    """
    at = next((index for index, word in enumerate(command) if os.path.basename(word) == "dvc"), len(command))
    words = [word for word in command[at + 1 :] if word not in HARMLESS]
    if words[:1] != ["repro"] or any(word.startswith("-") for word in words):
        return None
    return words[1:]


def read_plan(root: Path, present: str, targets: Sequence[str]) -> Plan:
    """Return what a ``dvc repro`` of these targets covers, and what is left while it runs the stage ``present``.

    Raises:
        LookupError, TypeError, ValueError, OSError: something is not as this project writes it.
    """
    params, dag = _read(root / PARAMS_FILE), _read(root / "dvc.yaml")
    usual = {name: value for each in dag.get("vars", []) for name, value in each.items()}
    steps = dict(_steps(dag["stages"], {**usual, **params}))
    makers = _makers(steps)
    covered = _closure(steps, makers, targets)
    if present not in covered:
        raise LookupError(present)
    lock = root / "dvc.lock"
    locked = _read(lock)["stages"] if lock.exists() else {}
    entries = {name: entry_of(name, locked[name]) for name in covered if name in locked}

    @cache
    def md5(path: str) -> str:
        return artifact_hash(root / path)

    @cache
    def holds(name: str) -> bool:
        """Return whether DVC would not run a stage again."""
        step, entry = steps[name], entries.get(name)
        if name == present or entry is None or entry.cmd != step.cmd or {*entry.deps, *entry.others} != {*step.deps}:
            return False
        return same_params(entry, params) and all(_same(entry, path) for path in step.deps)

    def _same(entry: Entry, path: str) -> bool:
        made_by = makers[path]
        if not made_by:
            return entry.others.get(path) == md5(path)
        if not all(map(holds, made_by)):
            return False
        # Of the folder of all artifacts it is enough that nothing in it is made anew.
        return path not in entry.deps or all(entries[name].outs.get(path) == entry.deps[path] for name in made_by)

    return Plan(covered, [name for name in covered if not holds(name)])


def _steps(dag: Mapping[str, Any], params: Mapping[str, Any]) -> Iterator[tuple[str, Step]]:
    """Yield the stages of dvc.yaml, one for each entry that it goes over."""
    for name, body in dag.items():
        if "foreach" not in body:
            yield name, _step(body, params)
            continue
        over = params[body["foreach"].strip("${}")]
        for key in over:
            own = {"key": key, "item": over[key]} if isinstance(over, dict) else {"item": key}
            yield f"{name}@{key}", _step(body["do"], {**params, **own})


def _step(body: Mapping[str, Any], names: Mapping[str, Any]) -> Step:
    def filled(text: str) -> str:
        def value(found: re.Match[str]) -> str:
            node: Any = names
            for part in found[1].split("."):
                node = node[part]
            return str(node)

        return re.sub(r"\$\{([^}]+)\}", value, text)

    if set(body) - {"cmd", "deps", "params", "outs", "metrics", "plots", "desc"}:
        raise ValueError("a stage with settings that are not understood here")
    outs = [
        out if isinstance(out, str) else next(iter(out)) for kind in ("outs", "metrics", "plots") for out in body.get(kind, ())
    ]
    return Step(filled(body["cmd"]), tuple(map(filled, body["deps"])), tuple(map(filled, outs)))


def _makers(steps: Mapping[str, Step]) -> dict[str, tuple[str, ...]]:
    """Return path that is read -> the stages that make it, or a part of it."""
    made = {out: name for name, step in steps.items() for out in step.outs}

    def of(path: str) -> tuple[str, ...]:
        if path in made:
            return (made[path],)
        return tuple(dict.fromkeys(name for out, name in made.items() if f"{out}/".startswith(f"{path}/")))

    return {path: of(path) for path in {dep for step in steps.values() for dep in step.deps}}


def _closure(steps: Mapping[str, Step], makers: Mapping[str, Iterable[str]], targets: Sequence[str]) -> list[str]:
    """Return the targets and all that they need, in the order of dvc.yaml. A target may name all stages of a name."""
    todo: list[str] = []
    for target in targets or steps:
        found = [name for name in steps if target in (name, name.partition("@")[0])]
        if not found:
            raise LookupError(target)
        todo += found
    needed: set[str] = set()
    while todo:
        name = todo.pop()
        if name not in needed:
            needed.add(name)
            todo += [maker for dep in steps[name].deps for maker in makers[dep]]
    return [name for name in steps if name in needed]


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Reads what DVC writes, five times as fast as ``params.parse_yaml``: a dvc.lock has thousands of lines."""


_Loader.add_implicit_resolver(  # numbers such as 2e-05, which YAML 1.1 takes for texts
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def _read(path: Path) -> Any:
    text = path.read_text(encoding="utf-8")
    if path.name == "dvc.lock":
        text = re.sub(r"^      (hash|size|nfiles): \S+\n", "", text, flags=re.MULTILINE)  # a third of it, needed by nobody here
    return yaml.load(text, _Loader)
