"""The champions of a model, one after the other: each change is a tag of the registered model, and none is overwritten."""

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Literal

from mlflow import MlflowClient

TAG = "wm.champion."
"""Name of such a tag, with the number of the change behind it."""

Gate = Literal["promoted", "rolled back", "retired"]


@dataclass(frozen=True)
class Change:
    """A change of the champion.

    Attributes:
        version: that is the champion from then on; None if there is none.
        time: in UTC.
        gate: how it came to be.
        reason: a sentence.
    """

    version: str | None
    time: str
    gate: Gate
    reason: str


def history(client: MlflowClient, name: str) -> list[Change]:
    """Return the changes of a model's champion, the first one first; tags that say no such thing are left out."""
    tags = client.get_registered_model(name).tags
    found = [_read(tags[key]) for key in sorted(tags) if key.startswith(TAG)]
    return [change for change in found if change is not None]


def remember(client: MlflowClient, name: str, version: str | None, gate: Gate, reason: str) -> None:
    """Write a change down behind those before it."""
    numbers = [key.removeprefix(TAG) for key in client.get_registered_model(name).tags if key.startswith(TAG)]
    number = 1 + max((int(each) for each in numbers if each.isdecimal()), default=0)
    client.set_registered_model_tag(name, f"{TAG}{number:04}", json.dumps(asdict(Change(version, now(), gate, reason))))


def before(client: MlflowClient, name: str, champion: str) -> str | None:
    """Return the version that was champion before this one and is still there; None if there is none.

    A version that was rolled back from is passed over; nothing before a ``retired`` counts. A champion that was set by hand
    has none before it.
    """
    reigns: list[str] = []
    for change in history(client, name):
        if change.gate == "retired" or change.version is None:
            reigns = []
        elif change.gate == "promoted":
            reigns.append(change.version)
        else:
            while reigns and reigns[-1] != change.version:
                reigns.pop()
    if not reigns or reigns[-1] != champion:
        return None
    there = {str(version.version) for version in client.search_model_versions(f"name='{name}'")}
    return next((version for version in reversed(reigns[:-1]) if version in there and version != champion), None)


def now() -> str:
    """Return the time, to the minute."""
    return f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"


def _read(text: str) -> Change | None:
    try:
        change = Change(**json.loads(text))
    except (ValueError, TypeError):
        return None
    return change if change.gate in ("promoted", "rolled back", "retired") else None
