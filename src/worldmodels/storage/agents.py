"""The card of an agent: what it is, for which game, and the fingerprint of the code that runs it."""

import hashlib
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from worldmodels.params import explain
from worldmodels.storage.files import read_json, write_json
from worldmodels.storage.layout import CARD, damaged


class AgentCard(BaseModel):
    """agent.json."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["random", "world-model"]  # ``random`` (iteration 0) or ``world-model``
    environment: str  # name of the environment's section in params.yaml
    game: dict[str, Any]  # the section's ``game`` part: the rules that the agent was made for
    controller: dict[str, Any] | None = None  # shape of C; None for ``random``
    # SHA-256 of the sources that turn frames into actions. A stage that uses an agent depends on its card, and so on this
    # code, without depending on the code of models that a random agent does not have
    code: str = ""


def write_card(folder: Path, card: AgentCard) -> None:
    """Write the card into an agent's folder."""
    write_json(folder / CARD, card.model_dump())


def read_card(folder: Path) -> AgentCard:
    """Read the card of an agent's folder; ArtifactError if there is none, or it is no card."""
    return read_part(folder, read_json(folder / CARD), "", AgentCard)


def read_part(folder: Path, node: Any, key: str, kind: Any) -> Any:
    """Return what stands at ``key`` of an agent's card as a ``kind``; ArtifactError if it is none."""
    try:
        return TypeAdapter(kind).validate_python(node)
    except ValidationError as error:
        raise damaged(folder / CARD, " ".join(explain(error, node, key))) from None


def code_fingerprint(sources: list[Path]) -> str:
    """Return the SHA-256 over source files, in the given order."""
    digest = hashlib.sha256()
    for source in sources:
        digest.update(source.read_bytes())
    return digest.hexdigest()
