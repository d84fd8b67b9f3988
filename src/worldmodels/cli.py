"""``wm``: look at, measure and watch what the pipeline made.

Every command imports what it needs when it runs, so that ``wm --help`` does not wait for torch and MLflow.
Exit codes: 0 done, 1 failed, 2 wrong usage or params.
"""

import os
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperGroup


class ErrorGroup(TyperGroup):
    """Shows an error that a person can act on as one message instead of a traceback."""

    def invoke(self, ctx: Any) -> Any:
        from worldmodels.errors import WorldModelsError

        try:
            return super().invoke(ctx)
        except (WorldModelsError, OSError) as error:  # OSError: a file that cannot be written, a full disk
            if ctx.params.get("debug") or os.environ.get("WM_DEBUG", "0") not in ("", "0"):
                raise
            typer.echo(f"wm: {error}", err=True)
            raise typer.Exit(error.exit_code if isinstance(error, WorldModelsError) else 1) from None


app = typer.Typer(
    cls=ErrorGroup,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    help="World Models: agents that learn inside their own dream of a game, measured in the real game.",
    epilog="Start with `wm show` (what exists), then `wm evaluate doom-1 --episodes 5 --video doom.mp4`.",
)
track = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="MLflow: the record of what the pipeline made.")
app.add_typer(track, name="track")

AgentName = Annotated[
    str,
    typer.Argument(
        metavar="AGENT",
        help="A chain key (doom-2), an MLflow model (models:/worldmodels-doom@candidate), or a folder with agent.json.",
    ),
]
Temperature = Annotated[
    float | None,
    typer.Option(
        min=0.01, max=10.0, help="Of the dream; higher is noisier. Default: the one the agent was evaluated at, else 1."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Machine-readable JSON on stdout, and nothing else there.")]
MAX_SEED = 2**27 - 1


@app.callback()
def wm(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks of errors (also: WM_DEBUG=1).")] = False,
) -> None:
    """Options of every command."""


@app.command(short_help="Play test episodes; print the mean return.")
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
    wm evaluate doom-2 --episodes 100
    wm evaluate doom-2 --world dream --temperature 1.15
    wm evaluate models:/worldmodels-doom@candidate --video agent.mp4 --json
    """
    from worldmodels.cli_agents import evaluate_agent
    from worldmodels.cli_project import find_root
    from worldmodels.errors import ParamsError
    from worldmodels.report.video import check_suffix

    if world == "real" and temperature is not None:
        raise ParamsError("--temperature is for dreams: add --world dream, or leave it out")
    if video is not None:
        check_suffix(video)
    result = evaluate_agent(
        find_root(), agent, world=world, temperature=temperature, episodes=episodes, start=seed, video=video
    )
    _print_json(result.as_dict()) if as_json else typer.echo(result.as_text())


@app.command(short_help="Draw or film what an agent dreams.")
def dream(
    agent: AgentName,
    steps: Annotated[int, typer.Option(min=1, max=100_000, help="Longest dream; it may end earlier.")] = 300,
    temperature: Temperature = None,
    seed: Annotated[int, typer.Option(min=0, max=MAX_SEED, help="Number of the dream.")] = 0,
    out: Annotated[Path, typer.Option(help="A filmstrip (.png) or a video (.mp4, .gif).")] = Path("dream.png"),
) -> None:
    """Let an agent act in its own dream, and draw what it dreams.

    \b
    wm dream doom-2 --out dream.png
    wm dream doom-2 --temperature 1.3 --steps 1000 --out dream.mp4
    """
    from worldmodels.cli_agents import film_dream
    from worldmodels.cli_project import find_root

    typer.echo(film_dream(find_root(), agent, steps=steps, temperature=temperature, start=seed, out=out))


@app.command(short_help="What exists: iterations, scores, hashes.")
def show(
    next_steps: Annotated[bool, typer.Option("--next-steps", help="Say where to look next.")] = False,
    as_json: Json = False,
) -> None:
    """Show what exists: iterations, scores, hashes, and what is missing."""
    from worldmodels.cli_project import find_root, next_steps_text, overview, overview_text

    root = find_root()
    found = overview(root)
    if as_json:
        _print_json(found)
        return
    typer.echo(overview_text(found))
    if next_steps:
        typer.echo("\n" + next_steps_text(found))


@app.command(short_help="Put a set of parameters in force.")
def preset(
    name: Annotated[str, typer.Argument(help="quick (minutes), laptop (hours), paper (GPU), or another in presets/.")],
    force: Annotated[bool, typer.Option("--force", help="Also where params.yaml holds edits: they are lost.")] = False,
) -> None:
    """Put a preset in force: copy presets/NAME.yaml over params.yaml.

    \b
    wm preset laptop && make repro
    """
    from worldmodels.cli_project import find_root, use_preset

    typer.echo(use_preset(find_root(), name, force=force))


@app.command(short_help="Validate the whole params.yaml.")
def check() -> None:
    """Validate the whole params.yaml before anything runs: every value, unknown keys, and the chain of iterations."""
    from worldmodels.cli_project import check_params, find_root

    typer.echo(check_params(find_root()))


@app.command(short_help="Check this machine; say what to do.")
def doctor(as_json: Json = False) -> None:
    """Check this machine: Python, packages, rendering, GPU, disk, MLflow store, DVC; each with a verdict."""
    from worldmodels.cli_project import find_root
    from worldmodels.doctor import examine, failed

    verdicts = []
    for verdict in examine(find_root()):
        verdicts.append(verdict)
        if not as_json:
            typer.echo(verdict.as_text())
    if as_json:
        _print_json([verdict._asdict() for verdict in verdicts])
    elif failed(verdicts):
        typer.echo("\nSomething that is required does not work: see the lines that say `fail`.", err=True)
    if failed(verdicts):
        raise typer.Exit(1)


@track.command("sync")
def track_sync() -> None:
    """Make MLflow hold what dvc.lock says: one run for every stage, one model version for every iteration.

    Running it twice changes nothing. A deleted MLflow database is rebuilt by it.
    """
    from worldmodels.cli_project import find_root, sync_tracking

    typer.echo(sync_tracking(find_root()))


@track.command("ui")
def track_ui(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port on this machine.")] = 5000,
) -> None:
    """Serve MLflow's pages of this project's runs on this machine, until Ctrl-C."""
    from worldmodels.cli_project import find_root, serve_tracking

    serve_tracking(find_root(), port)


def _print_json(value: Any) -> None:
    import json

    typer.echo(json.dumps(value, indent=2, allow_nan=False))


def main() -> None:
    """Entry point of ``wm``."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal without ± gets ?, not a crash
    app(prog_name="wm")


if __name__ == "__main__":
    main()
