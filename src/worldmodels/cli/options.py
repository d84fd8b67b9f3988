"""Arguments and options that several commands share, and how a shell completes them."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from worldmodels.cli.folder import find_root
from worldmodels.errors import ParamsError, WorldModelsError

MAX_SEED = 2**27 - 1


def complete_agent() -> list[str]:
    """Return what can be typed for an agent: the keys in params.yaml, and the agents that were made."""
    from worldmodels.cli.agents import agent_keys

    try:
        return agent_keys(find_root())
    except (WorldModelsError, OSError):  # there is no place for messages while a word is typed
        return []


def complete_environment() -> list[str]:
    """Return what can be typed for a game: the environments of params.yaml."""
    from worldmodels.cli.agents import environments_of, written_params

    try:
        return environments_of(written_params(find_root()))
    except (WorldModelsError, OSError):
        return []


def writable(*suffixes: str) -> Callable[[Path | None], Path | None]:
    """Return the check of an option for a file: one that cannot be written is refused before anything is played.

    It raises ParamsError if the suffix is another, the path is a folder, or its folder can be neither used nor made.
    """

    def check(path: Path | None) -> Path | None:
        if path is None:
            return None
        if path.suffix.lower() not in suffixes:
            allowed = " or ".join(filter(None, (", ".join(suffixes[:-1]), suffixes[-1])))
            raise ParamsError(f"{path}: cannot write a file with the suffix {path.suffix or '(none)'!r}. Use {allowed}.")
        if os.path.isdir(path):  # False, no error, for what can be no path
            raise ParamsError(f"{path} is a folder: name a file in it.")
        place = next(folder for folder in path.absolute().parents if os.path.exists(folder))
        if not os.path.isdir(place) or not os.access(place, os.W_OK | os.X_OK):
            raise ParamsError(f"{path}: files cannot be written below {place}.")
        return path

    return check


AgentName = Annotated[
    str,
    typer.Argument(
        metavar="AGENT",
        autocompletion=complete_agent,
        help="A key of `agents` (doom-2), an MLflow model (models:/worldmodels-doom@candidate), or a folder with agent.json.",
    ),
]
Temperature = Annotated[
    float | None,
    typer.Option(
        min=0.01, max=10.0, help="Temperature of dreams; more is noisier. Default: that of the agent's score; 1 if it has none."
    ),
]
OutFolder = Annotated[
    Path, typer.Argument(metavar="OUT", file_okay=False, help="The folder to write; made if it is not there.")
]
VersionName = Annotated[
    str, typer.Argument(metavar="VERSION", help="doom@candidate, doom/3, doom-2 (an agent), or doom for its candidate.")
]
Alpha = Annotated[
    float, typer.Option(min=1e-4, max=0.5, help="The gate's error rate: how often a version that is no better may pass.")
]
Json = Annotated[bool, typer.Option("--json", help="Machine-readable JSON on stdout, and nothing else there.")]


def print_json(value: Any) -> None:
    """Print JSON."""
    import json

    typer.echo(json.dumps(value, indent=2, allow_nan=False))
