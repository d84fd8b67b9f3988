"""Commands that play with an agent."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from worldmodels.cli.folder import find_root
from worldmodels.cli.options import MAX_SEED, AgentName, Json, OutFolder, Temperature, print_json, writable
from worldmodels.errors import ParamsError

commands = typer.Typer()
export = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Take an agent elsewhere.")
commands.add_typer(export, name="export")


@commands.command(short_help="Play test episodes; print the mean return.")
def evaluate(
    agent: AgentName,
    world: Annotated[Literal["real", "dream"], typer.Option(help="Where to play: the game, or M's dream of it.")] = "real",
    temperature: Temperature = None,
    episodes: Annotated[int, typer.Option(min=1, max=10_000, help="How many episodes to play.")] = 10,
    seed: Annotated[int, typer.Option(min=0, max=MAX_SEED, help="Number of the first test episode.")] = 0,
    video: Annotated[
        Path | None,
        typer.Option(callback=writable(".mp4", ".gif"), help="Film the first episode: a path ending in .mp4 or .gif."),
    ] = None,
    worst: Annotated[bool, typer.Option("--worst", help="With --video: film the worst episode instead of the first.")] = False,
    as_json: Json = False,
) -> None:
    """Play test episodes with an agent; print the mean return and its standard error.

    \b
    wm evaluate carracing-1-game --episodes 100
    wm evaluate doom-2 --world dream --temperature 1.15
    wm evaluate pretrained/doom
    wm evaluate pretrained/carracing --episodes 100 --worst --video lost.mp4
    wm evaluate models:/worldmodels-doom@candidate --video agent.mp4 --json
    """
    from worldmodels.cli import evaluate as testing
    from worldmodels.cli.agents import load

    if world != "dream" and temperature is not None:
        raise ParamsError("--temperature is for dreams: add --world dream, or leave it out")
    if worst and video is None:
        raise ParamsError("--worst says which episode is filmed: add --video lost.mp4, or leave it out")
    found = load(find_root(), agent, temperature)
    result = testing.evaluate(found, world, episodes, seed)
    print_json(result) if as_json else typer.echo(testing.evaluation_text(result))
    if video is not None:
        which = result["returns"].index(min(result["returns"])) if worst else 0
        testing.film_test(found, world, seed + which, video)
        typer.echo(f"video    {video} (episode {seed + which}, return {result['returns'][which]:.0f})", err=as_json)


@commands.command(short_help="Draw or film what an agent dreams.")
def dream(
    agent: AgentName,
    steps: Annotated[int | None, typer.Option(min=1, max=100_000, help="Longest dream. Default: the game's limit.")] = None,
    temperature: Temperature = None,
    seed: Annotated[int, typer.Option(min=0, max=MAX_SEED, help="Number of the dream.")] = 0,
    out: Annotated[
        Path, typer.Option(callback=writable(".png", ".mp4", ".gif"), help="A filmstrip (.png) or a video (.mp4, .gif).")
    ] = Path("dream.png"),
) -> None:
    """Let an agent act in its own dream, and draw what it dreams.

    \b
    wm dream doom-2 --out dream.png
    wm dream doom-2 --temperature 1.3 --steps 1000 --out dream.mp4
    """
    from worldmodels.cli.agents import load
    from worldmodels.cli.evaluate import draw_dream

    typer.echo(draw_dream(load(find_root(), agent, temperature), steps=steps, start=seed, out=out))


@commands.command(short_help="Play inside an agent's dream, in a browser.")
def play(
    agent: AgentName,
    temperature: Temperature = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port on 127.0.0.1; 0 takes a free one.")] = 8750,
    rate: Annotated[float | None, typer.Option(min=1, max=120, help="Steps a second. Default: the game's own.")] = None,
) -> None:
    """Serve a page on this machine, and open it on a desktop: you or the agent play a dream, beside the real game if you like.

    \b
    wm play doom-2
    wm play models:/worldmodels-doom@candidate --port 9000
    """
    from worldmodels.cli.agents import load
    from worldmodels.cli.play import serve

    serve(load(find_root(), agent, temperature), port=port, rate=rate)


@export.command("web", short_help="A folder that plays the dream in any browser, without Python.")
def export_page(agent: AgentName, out: OutFolder, temperature: Temperature = None) -> None:
    """Write a folder that plays an agent's dream in the browser, for any static web server. V, M and C are ONNX files.

    \b
    wm export web doom-2 site && python -m http.server --directory site
    """
    import shutil
    import tempfile

    from worldmodels.cli.agents import load
    from worldmodels.play.export import export_web

    name, loaded, tau = load(find_root(), agent, temperature)
    with tempfile.TemporaryDirectory(prefix="worldmodels-web-") as place:  # if it fails, nothing is written
        size = export_web(Path(place), loaded, name=name, temperature=tau, rate=loaded.game.frames_a_second)
        shutil.copytree(place, out, dirs_exist_ok=True)
    typer.echo(f"{out}: {name}, {size / 1e6:.1f} MB. `python -m http.server --directory {out}` shows it.")


@export.command("weights", short_help="A folder with the agent in half precision.")
def export_weights(agent: AgentName, out: OutFolder) -> None:
    """Write an agent with its weights in half precision: a folder that every command takes as an AGENT.

    \b
    wm export weights doom-2 pretrained/doom && wm evaluate pretrained/doom
    """
    from worldmodels.cli.agents import find_agent
    from worldmodels.storage.half import halve_agent

    name, folder = find_agent(find_root(), agent)
    size = halve_agent(folder, out)
    typer.echo(f"{out}: {name}, {size / 1e6:.1f} MB. `wm evaluate {out}` puts it to the test.")
