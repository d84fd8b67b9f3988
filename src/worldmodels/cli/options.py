"""Arguments and options that several commands share, and how a shell completes them."""

from pathlib import Path
from typing import Annotated, Any

import typer

MAX_SEED = 2**27 - 1


def complete_agent(incomplete: str) -> list[str]:
    """Return the agents that begin with what was typed: those of params.yaml, and those that were made."""
    from worldmodels.cli.agents import agent_keys

    return _complete(agent_keys, incomplete)


def complete_preset(incomplete: str) -> list[str]:
    """Return the presets that begin with what was typed."""
    from worldmodels.cli.presets import preset_files

    return _complete(preset_files, incomplete)


def complete_study(incomplete: str) -> list[str]:
    """Return the studies that begin with what was typed."""
    from worldmodels.cli.presets import study_files

    return _complete(study_files, incomplete)


def _complete(known: Any, incomplete: str) -> list[str]:
    from worldmodels.cli.folder import find_root
    from worldmodels.errors import WorldModelsError

    try:
        return [name for name in known(find_root()) if name.startswith(incomplete)]
    except (WorldModelsError, OSError):  # there is no place for messages while a word is typed
        return []


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
    typer.Option(min=0.01, max=10.0, help="Of the dream; higher is noisier. Default: the one of the agent's score, else 1."),
]
OutFolder = Annotated[Path, typer.Argument(metavar="OUT", help="The folder to write; it is made if it is not there.")]
VersionName = Annotated[
    str,
    typer.Argument(metavar="VERSION", help="doom@candidate, doom/3, doom-2 (an agent), or doom for its candidate."),
]
Alpha = Annotated[
    float,
    typer.Option(min=1e-4, max=0.5, help="The gate's error rate: how often one that is no better may pass."),
]
Json = Annotated[bool, typer.Option("--json", help="Machine-readable JSON on stdout, and nothing else there.")]


def print_json(value: Any) -> None:
    """Print JSON."""
    import json

    typer.echo(json.dumps(value, indent=2, allow_nan=False))
