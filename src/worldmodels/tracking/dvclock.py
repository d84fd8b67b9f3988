"""dvc.lock: what every stage read and made, which of it still holds, and which world model an agent is based on."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from worldmodels.errors import ArtifactError, ParamsError
from worldmodels.params import parse_yaml
from worldmodels.storage.layout import ARTIFACTS, KEY, METRICS, STAGES, primary_out

_READ = re.compile(rf"{ARTIFACTS}/(world_models|agents)/({KEY})/(.+)")


@dataclass(frozen=True)
class Entry:
    """One stage of dvc.lock.

    Attributes:
        stage: its name without the key.
        key: of the world model or the agent; ``<environment>-0`` of ``initialise``, ``report`` of the report.
        sections: dotted key of params.yaml -> what stood there when the stage ran.
        deps: path -> hash of the artifacts that it read.
        outs: path -> hash of what it made.
    """

    stage: str
    key: str
    sections: dict[str, Any]
    deps: dict[str, str]
    outs: dict[str, str]

    @property
    def params(self) -> dict[str, Any]:
        """Its params, flattened, by the names of params.yaml."""
        return {} if self.stage == "report" else flat(self.sections)

    @property
    def primary(self) -> str:
        """Path of the output that stands for it."""
        return primary_out(self.stage, self.key).as_posix()

    @property
    def artifact(self) -> str:
        """Hash of the output that stands for it."""
        return self.outs[self.primary]

    def read(self, folder: str, name: str) -> str | None:
        """Return the key of the world model or agent whose file ``name`` it read. ``folder``: world_models or agents."""
        found = [match for match in map(_READ.fullmatch, self.deps) if match]
        return next((match[2] for match in found if match[1] == folder and match[3] == name), None)


class DvcLock:
    """The stages of a dvc.lock, in its order.

    Attributes:
        entries: all of them.
        hashes: path -> hash of everything that a stage made.
        holding: those whose inputs are what the lock says: nothing has to run again.
    """

    def __init__(self, entries: Sequence[Entry]) -> None:
        self.entries = list(entries)
        self.hashes = {path: md5 for entry in entries for path, md5 in entry.outs.items()}
        self.holding = {(entry.stage, entry.key) for entry in in_force(entries)}
        self._known = {(entry.stage, entry.key): entry for entry in entries}

    def get(self, stage: str, key: str) -> Entry | None:
        """Return a stage that holds."""
        return self._known.get((stage, key)) if (stage, key) in self.holding else None

    def parent(self, entry: Entry) -> str | None:
        """Return the world model whose iteration a stage belongs to; None for the report."""
        section = STAGES[entry.stage]
        if section == "world_models":
            return entry.key
        if section == "agents":
            return self.world_model(entry.key)
        if section == "environments":
            firsts = (key for key in self._keys("collect") if self._before(key) == entry.key)
            return next(firsts, f"{entry.key.removesuffix('-0')}-1")
        return None

    def world_model(self, agent: str) -> str | None:
        """Return the world model that an agent is based on."""
        controller = self._known.get(("controller", agent))
        if controller is not None:
            return controller.read("world_models", "memory.safetensors")
        evaluate = self._known.get(("evaluate", agent))
        return None if evaluate is None else self.about(evaluate).get("world_model")

    def about(self, evaluate: Entry) -> dict[str, Any]:
        """Return the line of ``agents`` with which an agent was evaluated."""
        line = evaluate.sections.get(f"agents.{evaluate.key}")
        return line if isinstance(line, dict) else {}

    def world_models(self) -> list[str]:
        """Return the world models, each after the one that it goes on from."""
        keys = [key for key in (self.parent(entry) for entry in self.entries) if key is not None]
        return sorted(dict.fromkeys(keys), key=lambda key: len(list(self._chain(key, self._before))))

    def agents(self, world_model: str) -> list[str]:
        """Return the agents on a world model, each after the one that it begins at."""
        keys = [key for key in self._keys("controller") if self.world_model(key) == world_model]
        return sorted(keys, key=lambda key: len(list(self._chain(key, self._begin))))

    def _keys(self, stage: str) -> list[str]:
        return [entry.key for entry in self.entries if entry.stage == stage]

    def _before(self, world_model: str) -> str | None:
        entry = self._known.get(("collect", world_model))
        return None if entry is None else entry.read("world_models", "data.json")

    def _begin(self, agent: str) -> str | None:
        entry = self._known.get(("controller", agent))
        return None if entry is None else entry.read("agents", "agent")

    @staticmethod
    def _chain(key: str | None, before: Any) -> Iterator[str]:
        seen = set()
        while key is not None and key not in seen:
            seen.add(key)
            yield key
            key = before(key)


def in_force(entries: Sequence[Entry], params: Mapping[str, Any] | None = None) -> list[Entry]:
    """Return the entries whose inputs were made by entries that are in force; with these params, if they are given.

    These are the stages that ``dvc repro`` would not run again, if the code is the same.
    """
    makers = {path: entry for entry in entries for path in entry.outs}
    known: dict[tuple[str, str], bool] = {}

    def holds(entry: Entry) -> bool:
        name = (entry.stage, entry.key)
        if name not in known:
            known[name] = False  # an entry that needs itself does not hold
            same = params is None or all(_value(params, key) == value for key, value in entry.sections.items())
            inputs = [(makers.get(path), path, md5) for path, md5 in entry.deps.items() if STAGES[entry.stage]]
            known[name] = same and all(
                maker is not None and maker.outs[path] == md5 and holds(maker) for maker, path, md5 in inputs
            )
        return known[name]

    return [entry for entry in entries if holds(entry)]


def read_lock(path: Path) -> list[Entry]:
    """Return the stages of a dvc.lock, in its order.

    Raises:
        ArtifactError: it is missing or damaged.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ArtifactError(f"{path} does not exist: nothing was run yet. `make repro` runs the pipeline.") from None
    except (OSError, ValueError) as error:
        raise _damaged(str(path), error) from None
    return parse_lock(text, str(path))


def parse_lock(text: str, name: str = "dvc.lock") -> list[Entry]:
    """Return the stages in the text of a dvc.lock, in its order.

    Raises:
        ArtifactError: it is damaged.
    """
    try:
        stages = parse_yaml(text)["stages"]
        return [_entry(stage, content) for stage, content in stages.items() if stage.partition("@")[0] in STAGES]
    except (ValueError, KeyError, TypeError, AttributeError, ParamsError) as error:
        raise _damaged(name, error) from None


def flat(node: Any, prefix: str = "") -> dict[str, Any]:
    """Return nested params by dotted key.

    >>> flat({"doom.memory": {"model": {"hidden": 4}}, "seed": 0})
    {'doom.memory.model.hidden': 4, 'seed': 0}
    """
    if not isinstance(node, dict):
        return {prefix: node}
    return {k: v for name, child in node.items() for k, v in flat(child, f"{prefix}.{name}" if prefix else name).items()}


def _damaged(name: str, error: Exception) -> ArtifactError:
    reason = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, KeyError):
        reason = f"{reason} is missing"
    repair = "`git checkout dvc.lock` restores it; or delete it, then `dvc repro`."
    return ArtifactError(f"{name} is damaged ({reason[:300]}). {repair}")


def _entry(name: str, content: Mapping[str, Any]) -> Entry:
    stage, _, item = name.partition("@")
    key = {"initialise": f"{item}-0", "report": "report"}.get(stage, item)
    outs = {out["path"]: out["md5"] for out in content["outs"]}
    sections = {k: v for file in content.get("params", {}).values() for k, v in file.items()}
    kept = (f"{ARTIFACTS}/", f"{METRICS}/")
    deps = {dep["path"]: dep["md5"] for dep in content.get("deps", []) if dep["path"].startswith(kept)}
    entry = Entry(stage, key, sections, deps, outs)
    if not isinstance(entry.artifact, str):
        raise TypeError(f"the hash of {entry.primary} is no text")
    return entry


def _value(params: Any, key: str) -> Any:
    for part in key.split("."):
        if not isinstance(params, dict) or part not in params:
            return None
        params = params[part]
    return params
