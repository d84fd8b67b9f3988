"""Find an agent by what a person calls it."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from worldmodels.cli.folder import nearest
from worldmodels.errors import ArtifactError, ParamsError
from worldmodels.params import PARAMS_FILE, load_yaml
from worldmodels.storage.layout import ARTIFACTS, CARD, KEY, AgentFiles, require

if TYPE_CHECKING:
    from worldmodels.agent.agent import Agent


class Found(NamedTuple):
    """An agent, what a person called it, and the temperature of its dreams."""

    name: str
    agent: "Agent"
    temperature: float


def load(root: Path, text: str, temperature: float | None = None) -> Found:
    """Find an agent and read V, M and C. Without a ``temperature`` it is the one of the agent's score in the dream; else 1.

    Torch computes in one thread from here on, as in the evaluate stage: other counts can change the last bits.

    Raises:
        ParamsError, ArtifactError: as ``find_agent``; or its weights or scores are damaged.
    """
    name, folder = find_agent(root, text)
    import torch

    from worldmodels.agent.agent import load_agent

    torch.set_num_threads(1)
    agent = load_agent(folder)
    return Found(name, agent, _scored_temperature(folder) if temperature is None else temperature)


def _scored_temperature(folder: Path) -> float:
    from worldmodels.report.table import read_scores

    place = folder.resolve()
    if place.match(f"{ARTIFACTS}/agents/*/agent"):
        files = AgentFiles(place.parent.name, place.parents[3])
        dream = read_scores(files.scores)["dream"] if files.scores.is_file() else None
        return float(dream["temperature"]) if dream else 1.0
    return 1.0


def agent_keys(root: Path) -> list[str]:
    """Return the agents of params.yaml, then those that were made and stand there no more; random policies excepted."""
    written = written_params(root).get("agents")
    named = [str(key) for key in written] if isinstance(written, dict) else []
    made = sorted(card.parent.parent.name for card in (root / ARTIFACTS / "agents").glob(f"*/agent/{CARD}"))
    return list(dict.fromkeys([*named, *(key for key in made if not key.endswith("-0"))]))


def find_agent(root: Path, text: str) -> tuple[str, Path]:
    """Find an agent by its key, as an MLflow model URI, or as a folder that holds agent.json; return its name and folder.

    Raises:
        ParamsError: nothing is called so, with what is near; or it is the random policy.
        ArtifactError: it is known but not made, with the command that makes it.
    """
    name, folder = _find(root, text)
    from worldmodels.storage.agents import read_card

    if read_card(folder).kind == "random":
        raise ParamsError(f"{name} is the random policy: it has no V, M and C. `wm show` has its score.")
    return name, folder


def _find(root: Path, text: str) -> tuple[str, Path]:
    if text.startswith("models:/"):
        return text, _download(root, text)
    made = AgentFiles(text, root).agent if re.fullmatch(KEY, text) else None
    if made is not None and os.path.isfile(made / CARD):
        return text, made
    for folder in (Path(text), Path(text) / "agent"):
        if os.path.isfile(folder / CARD):  # False, no error, for what can be no path
            return text.rstrip("/"), folder
    known, random = agent_keys(root), [f"{name}-0" for name in environments_of(written_params(root))]
    if made is not None and text in (*known, *random):
        require(made / CARD)
    raise ParamsError(f"there is no agent `{text}`: no key of `agents`, and no folder with {CARD}.{nearest(text, known)}")


def written_params(root: Path) -> dict[str, Any]:
    """Return what params.yaml says, valid or not; nothing if there is none."""
    return load_yaml(root / PARAMS_FILE) if (root / PARAMS_FILE).is_file() else {}


def environments_of(params: Mapping[str, Any]) -> list[str]:
    """Return the environments that params name, valid or not."""
    named = params.get("environments")
    return [str(name) for name in named] if isinstance(named, list) else []


def _download(root: Path, uri: str) -> Path:
    """Return the folder of the agent in a registered model."""
    from worldmodels.tracking.store import opened, reason_of

    with opened(root, make=False):
        import mlflow

        try:
            local = Path(mlflow.artifacts.download_artifacts(artifact_uri=uri))
        except Exception as error:  # whatever a server, a database or a file system throws: the message names it
            raise ArtifactError(
                f"MLflow has no {uri} ({reason_of(error)}). `wm track sync` registers what was trained, and says what is lost."
            ) from None
    cards = sorted(local.rglob(CARD))
    if not cards:
        raise ArtifactError(f"{uri} holds no {CARD}: it is not an agent of this project.")
    return cards[0].parent
