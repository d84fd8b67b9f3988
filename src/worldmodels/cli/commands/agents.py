"""Commands that play with an agent."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from worldmodels.cli.options import MAX_SEED, AgentName, Json, OutFolder, Temperature, print_json

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
    video: Annotated[Path | None, typer.Option(help="Film the first episode: a path ending in .mp4 or .gif.")] = None,
    as_json: Json = False,
) -> None:
    """Play test episodes with an agent; print the mean return and its standard error.

    \b
    wm evaluate doom-2-game --episodes 100
    wm evaluate doom-2 --world dream --temperature 1.15
    wm evaluate pretrained/doom
    wm evaluate models:/worldmodels-doom@candidate --video agent.mp4 --json
    """
    from worldmodels.cli.evaluate import Match, check_output
    from worldmodels.cli.folder import find_root
    from worldmodels.errors import ParamsError

    if world != "dream" and temperature is not None:
        raise ParamsError("--temperature is for dreams: add --world dream, or leave it out")
    if video is not None:
        check_output(video, (".mp4", ".gif"))
    match = Match(find_root(), agent, world=world, temperature=temperature, episodes=episodes, start=seed)
    result = match.play()
    print_json(result.as_dict()) if as_json else typer.echo(result.as_text())
    if video is not None:
        match.film(video)
        typer.echo(f"video    {video} (the first episode, return {result.returns[0]:.0f})", err=as_json)


@commands.command(short_help="Draw or film what an agent dreams.")
def dream(
    agent: AgentName,
    steps: Annotated[int | None, typer.Option(min=1, max=100_000, help="Longest dream. Default: the game's limit.")] = None,
    temperature: Temperature = None,
    seed: Annotated[int, typer.Option(min=0, max=MAX_SEED, help="Number of the dream.")] = 0,
    out: Annotated[Path, typer.Option(help="A filmstrip (.png) or a video (.mp4, .gif).")] = Path("dream.png"),
) -> None:
    """Let an agent act in its own dream, and draw what it dreams.

    \b
    wm dream doom-2 --out dream.png
    wm dream doom-2 --temperature 1.3 --steps 1000 --out dream.mp4
    """
    from worldmodels.cli.evaluate import check_output, film_dream
    from worldmodels.cli.folder import find_root

    check_output(out, (".png", ".mp4", ".gif"))
    typer.echo(film_dream(find_root(), agent, steps=steps, temperature=temperature, start=seed, out=out))


@commands.command(short_help="Play inside an agent's dream, in a browser.")
def play(
    agent: AgentName,
    temperature: Temperature = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="On 127.0.0.1; 0 takes a free one.")] = 8750,
    rate: Annotated[float | None, typer.Option(min=1, max=120, help="Steps a second. Default: the game's own.")] = None,
) -> None:
    """Serve a page on this machine where a dream is played: by you, or by the agent; beside the real game, if you like.

    \b
    wm play doom-2
    wm play models:/worldmodels-doom@champion --port 9000
    """
    from worldmodels.cli.folder import find_root
    from worldmodels.cli.play import serve

    serve(find_root(), agent, temperature=temperature, port=port, rate=rate)


@export.command("web", short_help="A folder that plays the dream in any browser, without Python.")
def export_web(agent: AgentName, out: OutFolder, temperature: Temperature = None) -> None:
    """Write a folder for any static web server that plays an agent's dream in the browser: V and M as ONNX, and all else.

    \b
    wm export web doom-2 site && python -m http.server --directory site
    """
    from worldmodels.cli.folder import find_root
    from worldmodels.cli.play import export_page

    typer.echo(export_page(find_root(), agent, out, temperature=temperature))


@export.command("weights", short_help="A folder with the agent in half precision.")
def export_weights(agent: AgentName, out: OutFolder) -> None:
    """Write an agent with its weights in half precision: a folder that every command takes as an AGENT.

    \b
    wm export weights doom-2 pretrained/doom && wm evaluate pretrained/doom
    """
    from worldmodels.cli.agents import find_agent
    from worldmodels.cli.folder import find_root
    from worldmodels.storage.half import halve_agent

    found = find_agent(find_root(), agent)
    size = halve_agent(found.folder, out)
    typer.echo(f"{out}: {found.name}, {size / 1e6:.1f} MB. `wm evaluate {out}` puts it to the test.")
