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


@commands.command("import", short_help="Take play from a Minari data set.")
def import_minari(
    game: EnvironmentName,
    source: Annotated[str, typer.Argument(metavar="DATA", help="minari:ID, or the folder of a Minari data set.")],
    picture: Annotated[str, typer.Option(help="Key of the picture, if an observation holds several.")] = "",
    episodes: Annotated[int | None, typer.Option(min=1, help="Take the first so many episodes. Default: all.")] = None,
    out: Folder = None,
) -> None:
    """Write the episodes of a Minari data set as a recording of a game of params.yaml. Its observations must be pictures.

    \b
    wm import pong minari:atari/pong/expert-v0 --episodes 20
    """
    from worldmodels.cli.record import import_play

    root = project_folder()
    folder = out or root / "recordings" / game
    typer.echo(import_play(root, game, source, folder, picture=picture, episodes=episodes))


@commands.command(short_help="Play a game, and keep it for world models to learn from.")
def record(
    game: EnvironmentName,
    by: Annotated[str, typer.Option(help="Who plays: random, hand (you, in a browser), or an agent.")] = "random",
    episodes: Annotated[int, typer.Option(min=1, max=100_000, help="How many episodes to play.")] = 10,
    strength: Annotated[
        float, typer.Option(min=0, max=10, help="By how much an agent's actions are disturbed at random.")
    ] = 0.0,
    port: Annotated[int, typer.Option(min=0, max=65535, help="By hand: port on 127.0.0.1; 0 takes a free one.")] = 8750,
    rate: Annotated[
        float | None, typer.Option(min=1, max=120, help="By hand: steps a second. Default: the game's own.")
    ] = None,
    out: Folder = None,
) -> None:
    """Play a game of params.yaml and write a recording: a folder of episodes, which V, M and C can learn from.

    Episodes are added to those that are there. docs/howto/learn-from-recordings.md says what is in them, and what to do next.

    \b
    wm record carracing --episodes 100
    wm record carracing --by hand --rate 20 --out recordings/by-hand
    wm record doom --by pretrained/doom --strength 0.3 --out recordings/doom-good
    """
    from worldmodels.cli.record import BY_HAND, RANDOM, record_by_hand, record_play

    if by in (RANDOM, BY_HAND) and strength:
        raise ParamsError("--strength is for agents: name one with --by, or leave it out")
    root = project_folder()
    folder = out or root / "recordings" / game
    if by == BY_HAND:
        typer.echo(record_by_hand(root, game, folder, port=port, rate=rate))
        return
    typer.echo(record_play(root, game, folder, player=by, episodes=episodes, strength=strength))
