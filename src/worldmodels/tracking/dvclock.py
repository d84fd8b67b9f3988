"""dvc.lock: what every stage read and made, which of it still holds, and which world model an agent is based on."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path
from typing import Any

from worldmodels.errors import ArtifactError, ParamsError
from worldmodels.params import flat, parse_yaml
from worldmodels.storage.layout import ARTIFACTS, KEY, METRICS, STAGES, WorldModelFiles, primary_out

LINEAGE = {"wm.data": "data.json", "wm.V": "vision.safetensors", "wm.M": "memory.safetensors"}
"""Tag -> what of a world model an agent is made of."""


@dataclass(frozen=True)
class Entry:
    """One stage of dvc.lock."""

    stage: str  # its name without the key
    key: str  # of the world model or the agent; `<environment>-0` of initialise, `report` of the report
    env: str  # its game; none of the report
    sections: dict[str, Any]  # dotted key of params.yaml -> what stood there when the stage ran
    deps: dict[str, str]  # path -> hash of the artifacts that it read
    outs: dict[str, str]  # path -> hash of what it made
    cmd: str = ""
    others: dict[str, str] = field(default_factory=dict)  # path -> hash of what else it read: code, folders of all artifacts

    @property
    def params(self) -> dict[str, Any]:
        """Its params, flattened, by the names of params.yaml."""
        return flat(self.sections)

    @property
    def primary(self) -> str:
        """Path of the output that stands for it."""
        return primary_out(self.stage, self.key).as_posix()

    @property
    def artifact(self) -> str:
        """Hash of the output that stands for it."""
        return self.outs[self.primary]

    @property
    def about(self) -> dict[str, Any]:
        """The line of ``agents`` with which an agent was evaluated."""
        line = self.sections.get(f"agents.{self.key}")
        return line if isinstance(line, dict) else {}

    def read(self, path: str) -> str | None:
        """Return the key in the first path that it read and that is like ``path``: world_models/*/data.json."""
        pattern = re.escape(f"{ARTIFACTS}/{path}").replace(r"\*", f"({KEY})")
        return next((match[1] for match in (re.fullmatch(pattern, dep) for dep in self.deps) if match), None)


class DvcLock:
    """The stages of a dvc.lock, in its order."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        self.entries = list(entries)
        self.hashes = {path: md5 for entry in entries for path, md5 in entry.outs.items()}
        self._holding = in_force(entries)
        self._known = {(entry.stage, entry.key): entry for entry in entries}

    def get(self, stage: str, key: str) -> Entry | None:
        """Return a stage that holds: nothing that it read was made anew since."""
        return next((entry for entry in self._holding if (entry.stage, entry.key) == (stage, key)), None)

    def parent(self, entry: Entry) -> str | None:
        """Return the world model whose iteration a stage belongs to, if it belongs to one."""
        section = STAGES[entry.stage]
        return entry.key if section == "world_models" else self.world_model(entry.key) if section == "agents" else None

    def world_model(self, agent: str) -> str | None:
        """Return the world model that an agent is based on."""
        controller, evaluate = (self._known.get((stage, agent)) for stage in ("controller", "evaluate"))
        if controller is not None:
            return controller.read("world_models/*/memory.safetensors")
        return None if evaluate is None else evaluate.about.get("world_model")

    def world_models(self) -> list[str]:
        """Return the world models, each after the one that it goes on from."""
        parents = [key for key in map(self.parent, self.entries) if key is not None]
        return self._in_order(parents, "collect", "world_models/*/data.json")

    def agents(self, world_model: str) -> list[str]:
        """Return the agents on a world model, each after the one that it begins at."""
        agents = [entry.key for entry in self.entries if entry.stage == "controller"]
        based = [key for key in agents if self.world_model(key) == world_model]
        return self._in_order(based, "controller", "agents/*/agent")

    def lineage(self, world_model: str) -> dict[str, str]:
        """Return the hashes of what agents on a world model are made of, by tag; without what was not made yet."""
        paths = {tag: (WorldModelFiles(world_model).folder / file).as_posix() for tag, file in LINEAGE.items()}
        return {tag: self.hashes[path] for tag, path in paths.items() if path in self.hashes}

    def _in_order(self, keys: Sequence[str], stage: str, read: str) -> list[str]:
        """Return keys by how many others they go on from, one after the other."""

        def depth(key: str | None, seen: tuple[str, ...] = ()) -> int:
            entry = self._known.get((stage, key)) if key is not None and key not in seen else None
            return 0 if entry is None else 1 + depth(entry.read(read), (*seen, entry.key))

        return sorted(dict.fromkeys(keys), key=depth)


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
            same = params is None or same_params(entry, params)
            inputs = [(makers.get(path), path, md5) for path, md5 in entry.deps.items() if STAGES[entry.stage]]
            known[name] = same and all(
                maker is not None and maker.outs[path] == md5 and holds(maker) for maker, path, md5 in inputs
            )
        return known[name]

    return [entry for entry in entries if holds(entry)]


def same_params(entry: Entry, params: Mapping[str, Any]) -> bool:
    """Return whether a stage was run with what these params say."""

    def value(key: str) -> Any:
        node: Any = params
        return reduce(lambda node, part: node.get(part) if isinstance(node, Mapping) else None, key.split("."), node)

    return all(value(key) == told for key, told in entry.sections.items())


def read_lock(path: Path) -> list[Entry]:
    """Return the stages of a dvc.lock, in its order.

    Raises:
        ArtifactError: it is missing or damaged.
    """
    try:
        return parse_lock(path.read_text(encoding="utf-8"), str(path))
    except FileNotFoundError:
        raise ArtifactError(f"{path} does not exist: nothing was run yet. `make repro` runs the pipeline.") from None
    except (OSError, ValueError) as error:
        raise _damaged(str(path), error) from None


def parse_lock(text: str, name: str = "dvc.lock") -> list[Entry]:
    """Return the stages in the text of a dvc.lock, in its order.

    Raises:
        ArtifactError: it is damaged.
    """
    try:
        stages = parse_yaml(text)["stages"]
        return [entry_of(stage, content) for stage, content in stages.items() if stage.partition("@")[0] in STAGES]
    except KeyError as error:
        raise _damaged(name, f"{error} is missing") from None
    except (ValueError, TypeError, AttributeError, ParamsError) as error:
        raise _damaged(name, error) from None


def artifact_hash(path: Path) -> str:
    """Return the hash that dvc.lock has for a file (MD5) or a folder (MD5 of its sorted list of files, with ``.dir``)."""
    if not path.is_dir():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "md5").hexdigest()
    files = sorted(
        (file.relative_to(path).as_posix(), file)
        for file in path.rglob("*")
        if file.is_file() and file.suffix != ".pyc"  # as .dvcignore says
    )
    listing = [{"md5": artifact_hash(file), "relpath": name} for name, file in files]
    return hashlib.md5(json.dumps(listing, sort_keys=True).encode()).hexdigest() + ".dir"


def _damaged(name: str, reason: object) -> ArtifactError:
    told = " ".join(str(reason).split())[:300]
    return ArtifactError(f"{name} is damaged ({told}). `git checkout dvc.lock` restores it; or delete it, then `dvc repro`.")


def entry_of(name: str, content: Mapping[str, Any]) -> Entry:
    """Return a stage of dvc.lock; KeyError, TypeError or AttributeError if it is none."""
    stage, _, item = name.partition("@")
    key = {"initialise": f"{item}-0", "report": "report"}.get(stage, item)
    sections = {k: v for file in content.get("params", {}).values() for k, v in file.items()}
    kept = (f"{ARTIFACTS}/", f"{METRICS}/")
    read = {dep["path"]: dep["md5"] for dep in content.get("deps", [])}
    deps = {path: md5 for path, md5 in read.items() if path.startswith(kept)}
    others = {path: md5 for path, md5 in read.items() if path not in deps}
    env = item if stage == "initialise" else next(iter(re.findall(r" env=(\S+)", str(content.get("cmd")))), "")
    outs = {out["path"]: out["md5"] for out in content["outs"]}
    entry = Entry(stage, key, env, sections, deps, outs, str(content.get("cmd")), others)
    if not isinstance(entry.artifact, str):
        raise TypeError(f"the hash of {entry.primary} is no text")
    return entry
