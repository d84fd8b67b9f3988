"""Commands that make recordings: play that world models learn from."""

from pathlib import Path
from typing import Annotated

import typer

from worldmodels.cli.folder import project_folder
from worldmodels.cli.options import complete_environment
from worldmodels.errors import ParamsError

commands = typer.Typer()
EnvironmentName = Annotated[
    str, typer.Argument(metavar="GAME", autocompletion=complete_environment, help="One of `environments` in params.yaml.")
]
Folder = Annotated[
    Path | None, typer.Option(file_okay=False, help="The folder to write or to add to. Default: recordings/GAME.")
]


@commands.command(short_help="Play a game, and keep it for world models to learn from.")
def record(
    game: EnvironmentName,
    by: Annotated[str, typer.Option(help="Who plays: random, or an agent as in `wm evaluate`.")] = "random",
    episodes: Annotated[int, typer.Option(min=1, max=100_000, help="How many episodes to play.")] = 10,
    strength: Annotated[
        float, typer.Option(min=0, max=10, help="By how much an agent's actions are disturbed at random.")
    ] = 0.0,
    out: Folder = None,
) -> None:
    """Play a game of params.yaml and write a recording: a folder of episodes, which V, M and C can learn from.

    Episodes are added to those that are there. docs/howto/learn-from-recordings.md says what is in them, and what to do next.

    \b
    wm record carracing --episodes 100
    wm record doom --by pretrained/doom --strength 0.3 --out recordings/doom-good
    """
    from worldmodels.cli.record import RANDOM, record_play

    if by == RANDOM and strength:
        raise ParamsError("--strength is for agents: name one with --by, or leave it out")
    root = project_folder()
    folder = out or root / "recordings" / game
    typer.echo(record_play(root, game, folder, player=by, episodes=episodes, strength=strength))
