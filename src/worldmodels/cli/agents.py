"""Find an agent by what a person calls it."""

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from worldmodels.cli.folder import nearest
from worldmodels.errors import ArtifactError, ParamsError
from worldmodels.params import PARAMS_FILE, load_yaml
from worldmodels.storage.layout import ARTIFACTS, KEY, AgentFiles, require

if TYPE_CHECKING:
    from worldmodels.agent.agent import Agent

REGISTRY = "models:/"
CARD = "agent.json"


@dataclass(frozen=True)
class Found:
    """An agent's folder, and what to call it."""

    name: str
    folder: Path

    def load(self) -> "Agent":
        """Read V, M and C."""
        from worldmodels.agent.agent import load_agent

        return load_agent(self.folder)

    def temperature(self, given: float | None) -> float:
        """Return the temperature given; else the one of the agent's score in the dream; else 1.

        Raises:
            ArtifactError: the file of scores is damaged.
        """
        if given is not None:
            return given
        place = self.folder.resolve()
        if place.name != "agent" or place.parent.parent.parts[-2:] != (ARTIFACTS.name, "agents"):
            return 1.0
        scores = AgentFiles(place.parent.name, place.parents[3]).scores
        if not scores.is_file():
            return 1.0
        try:
            dream = json.loads(scores.read_text())["dream"]
            return 1.0 if dream is None else float(dream["temperature"])
        except (ValueError, KeyError, TypeError, RecursionError):
            raise ArtifactError(f"{scores} is damaged. Give --temperature, or make the file again.") from None


def agent_keys(root: Path) -> list[str]:
    """Return the agents of params.yaml, then those that were made and stand there no more; random policies excepted."""
    data = load_yaml(root / PARAMS_FILE) if (root / PARAMS_FILE).is_file() else {}
    written = data.get("agents")
    named = [str(key) for key in written] if isinstance(written, dict) else []
    made = sorted(card.parent.parent.name for card in (root / ARTIFACTS / "agents").glob(f"*/agent/{CARD}"))
    return list(dict.fromkeys([*named, *(key for key in made if not key.endswith("-0"))]))


def find_agent(root: Path, text: str) -> Found:
    """Find an agent by its key, as an MLflow model URI, or as a folder that holds agent.json.

    Raises:
        ParamsError: nothing is called so, with what is near; or it is the random policy.
        ArtifactError: it is known but not made, with the command that makes it.
    """
    found = _find(root, text)
    from worldmodels.storage.agents import read_card

    if read_card(found.folder).kind == "random":
        raise ParamsError(f"{found.name} is the random policy: it has no V, M and C. `wm show` has its score.")
    return found


def _find(root: Path, text: str) -> Found:
    if text.startswith(REGISTRY):
        return Found(text, _download(root, text))
    made = AgentFiles(text, root).agent if re.fullmatch(KEY, text) else None
    if made is not None and os.path.isfile(made / CARD):
        return Found(text, made)
    for folder in (Path(text), Path(text) / "agent"):
        if os.path.isfile(folder / CARD):  # False, no error, for what can be no path
            return Found(text.rstrip("/"), folder)
    known = agent_keys(root)
    if made is not None and text in (*known, *_random_policies(root)):
        require(made / CARD)
    raise ParamsError(f"there is no agent `{text}`: no key of `agents`, and no folder with {CARD}.{nearest(text, known)}")


def _random_policies(root: Path) -> list[str]:
    names = load_yaml(root / PARAMS_FILE).get("environments") if (root / PARAMS_FILE).is_file() else None
    return [f"{name}-0" for name in names] if isinstance(names, list) else []


def _download(root: Path, uri: str) -> Path:
    """Return the folder of the agent in a registered model."""
    from worldmodels.tracking.store import opened, reason_of

    with opened(root, make=False):
        import mlflow

        try:
            local = Path(mlflow.artifacts.download_artifacts(artifact_uri=uri))
        except Exception as error:  # whatever a server, a database or a file system throws: the message names it
            raise ArtifactError(
                f"MLflow has no {uri} ({reason_of(error)}). `wm track sync` registers what was trained."
            ) from None
    cards = sorted(local.rglob(CARD))
    if not cards:
        raise ArtifactError(f"{uri} holds no {CARD}: it is not an agent of this project.")
    return cards[0].parent
