"""What the report reads of a run: its agents and world models by game, and their files, each error with a command."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from worldmodels.games.make import Game
from worldmodels.params import section
from worldmodels.report.table import NO_STUDY, read_scores
from worldmodels.storage.layout import AgentFiles, WorldModelFiles, damaged, require

T = TypeVar("T")
_FIGURES = ("mean", "std", "best", "reward", "stderr")


@dataclass(frozen=True)
class GameRun:
    """All that a run has of one game, in the order of params.yaml.

    Attributes:
        rules: of the game.
        environments: sections of params.yaml that are this game.
        agents: key -> files.
        world_models: key -> files.
        scores: key of an agent -> its scores.
    """

    rules: str
    environments: Sequence[str]
    agents: Mapping[str, AgentFiles]
    world_models: Mapping[str, WorldModelFiles]
    scores: Mapping[str, Mapping[str, Any]]

    @property
    def chain(self) -> dict[str, AgentFiles]:
        """The agents that belong to no study; if all do, all of them."""
        chain = {key: files for key, files in self.agents.items() if self.scores[key]["study"] == NO_STUDY}
        return chain or dict(self.agents)


def read_run(root: Path, params: Mapping[str, Any]) -> list[GameRun]:
    """Return the games of a run that have agents, in the order of ``environments``.

    Environments with the same rules are one game: their scores compare. What stands in folders of artifacts and not in params
    is no part of the run.

    Args:
        root: the project's folder.
        params: the params file as a mapping.

    Raises:
        ArtifactError: scores of an agent are missing or damaged.
        ParamsError: a section of a game is missing or wrong.
    """
    rules: dict[str, list[str]] = {}
    for name in params["environments"]:
        rules.setdefault(section(dict(params), f"{name}.game", Game).rules, []).append(name)
    runs = []
    for each, names in rules.items():
        agents = {
            key: AgentFiles(key, root) for name in names for key, entry in params["agents"].items() if entry["env"] == name
        }
        models = {key: WorldModelFiles(key, root) for key, entry in params["world_models"].items() if entry["env"] in names}
        if agents:
            scores = {key: read_scores(files) for key, files in agents.items()}
            runs.append(GameRun(each, names, agents, models, scores))
    return runs


def readable(read: Callable[[Path], T], path: Path) -> T:
    """Return what ``read`` makes of a file.

    Raises:
        ArtifactError: it is missing, or ``read`` cannot read it, with the command that makes it.
    """
    try:
        return read(require(path))
    except (ValueError, OSError) as error:
        raise damaged(path, error) from None


def table(path: Path, *columns: str) -> pd.DataFrame:
    """Return a CSV file as a table.

    Raises:
        ArtifactError: it is missing, is no table, or lacks one of the ``columns``, with the command that makes it.
    """
    found = readable(pd.read_csv, path)
    missing = [name for name in columns if name not in found]
    if missing:
        raise damaged(path, f"it lacks {', '.join(missing)}")
    return found


def search_table(files: AgentFiles) -> pd.DataFrame:
    """Return the curve of an agent's search with all columns that pictures ask for; NaN if no phase has such a figure."""
    found = table(files.curve, "generation", "phase", "world", "steps")
    return found.reindex(columns=[*found, *(name for name in _FIGURES if name not in found)])


def keep(path: Path, data: bytes) -> bytes:
    """Write a file and return its content."""
    path.write_bytes(data)
    return data


def hashes(folder: Path, paths: Sequence[Path]) -> dict[str, str]:
    """Return the MD5 of files by their names from ``folder`` on."""
    found = {path.relative_to(folder).as_posix(): require(path).read_bytes() for path in paths}
    return {name: hashlib.md5(content, usedforsecurity=False).hexdigest() for name, content in found.items()}


def flat(node: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested params by their dotted names.

    >>> flat({"a": {"b": 1, "c": [2]}, "d": 3})
    {'a.b': 1, 'a.c': [2], 'd': 3}
    """
    found: dict[str, Any] = {}
    for name, value in node.items():
        found |= flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + str(name): value}
    return found
