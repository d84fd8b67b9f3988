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
export = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Take an agent elsewhere.")
app.add_typer(export, name="export")
registry = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Release agents: compare versions, move `champion`.")
app.add_typer(registry, name="registry")

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
VersionName = Annotated[
    str,
    typer.Argument(metavar="VERSION", help="doom@candidate, doom/3, doom-2 (an agent), or doom for its candidate."),
]
Alpha = Annotated[
    float,
    typer.Option(min=1e-4, max=0.5, help="The gate's error rate: how often one that is no better may pass."),
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
    world: Annotated[
        Literal["real", "dream", "training"],
        typer.Option(help="Where to play: the game; M's dream of it; or the game on the back end that trains (EnvPool)."),
    ] = "real",
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
    from worldmodels.cli.agents import evaluate_agent
    from worldmodels.cli.show import find_root
    from worldmodels.errors import ParamsError
    from worldmodels.report.video import check_suffix

    if world != "dream" and temperature is not None:
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
    from worldmodels.cli.agents import film_dream
    from worldmodels.cli.show import find_root

    typer.echo(film_dream(find_root(), agent, steps=steps, temperature=temperature, start=seed, out=out))


@app.command(short_help="Play inside an agent's dream, in a browser.")
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
    from worldmodels.cli.play import serve
    from worldmodels.cli.show import find_root

    serve(find_root(), agent, temperature=temperature, port=port, rate=rate)


@export.command("web", short_help="A folder that plays the dream in any browser, without Python.")
def export_web(
    agent: AgentName,
    out: Annotated[Path, typer.Argument(help="The folder to write; made if it is not there.")],
    temperature: Temperature = None,
) -> None:
    """Write a folder for any static web server that plays an agent's dream in the browser: V and M as ONNX, and all else.

    \b
    wm export web doom-2 site && python -m http.server --directory site
    """
    from worldmodels.cli.play import export_page
    from worldmodels.cli.show import find_root

    typer.echo(export_page(find_root(), agent, out, temperature=temperature))


@export.command("weights", short_help="A folder with the agent in half precision.")
def export_weights(
    agent: AgentName,
    out: Annotated[Path, typer.Argument(help="The folder to write; made if it is not there.")],
) -> None:
    """Write an agent with its weights in half precision: a folder that every command takes as an AGENT.

    \b
    wm export weights doom-2 pretrained/doom && wm evaluate pretrained/doom
    """
    from worldmodels.cli.agents import find_agent
    from worldmodels.cli.show import find_root
    from worldmodels.storage.half import halve_agent

    size = halve_agent(find_agent(find_root(), agent).folder, out)
    typer.echo(f"{out}: {agent}, {size / 1e6:.1f} MB. `wm evaluate {out}` puts it to the test.")


@app.command(short_help="What exists: iterations, scores, hashes.")
def show(
    next_steps: Annotated[bool, typer.Option("--next-steps", help="Say where to look next.")] = False,
    as_json: Json = False,
) -> None:
    """Show what exists: iterations, scores, hashes, and what is missing."""
    from worldmodels.cli.show import find_root, next_steps_text, overview, overview_text

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
    from worldmodels.cli.show import find_root, use_preset

    typer.echo(use_preset(find_root(), name, force=force))


@app.command(short_help="Validate the whole params.yaml.")
def check() -> None:
    """Validate the whole params.yaml before anything runs: every value, unknown keys, and the chain of iterations."""
    from worldmodels.cli.show import check_params, find_root

    typer.echo(check_params(find_root()))


@app.command(short_help="Run experiments over several values of params.")
def sweep(
    assignments: Annotated[
        list[str],
        typer.Argument(metavar="KEY=VALUE,VALUE...", help="Params by dotted key, and the values to try; A,B=... sets both."),
    ],
    target: Annotated[
        list[str] | None, typer.Option(help="A stage to run up to, such as evaluate@doom-1; may be repeated. Default: all.")
    ] = None,
    dry: Annotated[bool, typer.Option("--dry", help="Say what would run, and run nothing.")] = False,
    queue: Annotated[bool, typer.Option("--queue", help="Only queue them, for `dvc queue start -j N`.")] = False,
    figure: Annotated[Path | None, typer.Option(help="Draw the scores over the first param: a path ending in .png.")] = None,
    as_json: Json = False,
) -> None:
    """Run one DVC experiment for every combination of values, and print a table of their scores.

    Each runs in a folder of its own and is a run in MLflow by its experiment's name. The same command again continues.

    \b
    wm sweep doom.evaluate.dream.temperature=0.5,1.0,1.3 --target evaluate@doom-1
    wm sweep doom.controller.evolution.sigma=0.1,0.2 seed=0,1,2 --dry
    wm sweep doom.controller.dream.temperature,doom.evaluate.dream.temperature=0.1,1.0 --figure temperature.png
    """
    from worldmodels.cli import sweep as sweeping
    from worldmodels.cli.show import find_root
    from worldmodels.errors import ParamsError

    if figure is not None and figure.suffix != ".png":
        raise ParamsError(f"{figure}: a figure is written as .png")
    table, failed = sweeping.sweep(find_root(), assignments, target or [], dry=dry, queue=queue)
    _print_json(table) if as_json else typer.echo(sweeping.text(table))
    if figure is not None:
        from worldmodels.report.pictures import write_png

        write_png(figure, sweeping.figure(table))
    if failed:
        raise typer.Exit(1)


@app.command(short_help="Check this machine; say what to do.")
def doctor(as_json: Json = False) -> None:
    """Check this machine: Python, packages, rendering, GPU, disk, MLflow store, DVC; each with a verdict."""
    from worldmodels.cli.show import find_root
    from worldmodels.cli.doctor import examine, failed

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
    from worldmodels.cli.show import find_root, sync_tracking

    typer.echo(sync_tracking(find_root()))


@track.command("ui")
def track_ui(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port on this machine.")] = 5000,
) -> None:
    """Serve MLflow's pages of this project's runs on this machine, until Ctrl-C."""
    from worldmodels.cli.show import find_root, serve_tracking

    serve_tracking(find_root(), port)


@registry.command("list")
def registry_list(
    model: Annotated[str | None, typer.Argument(help="Of one game only: doom, or worldmodels-doom.")] = None,
    as_json: Json = False,
) -> None:
    """List registered versions: aliases, scores, and what the gate said.

    \b
    wm registry list doom
    """
    from worldmodels.cli.show import find_root
    from worldmodels.cli.registry import list_text, list_versions

    rows = list_versions(find_root(), model)
    _print_json(rows) if as_json else typer.echo(list_text(rows))


@registry.command("compare")
def registry_compare(
    version: VersionName,
    reference: Annotated[
        str | None, typer.Argument(help="Another version, or `random`. Default: the champion, or `random` without one.")
    ] = None,
    alpha: Alpha = 0.05,
    as_json: Json = False,
) -> None:
    """Ask the gate whether a version is better than another, and change nothing.

    A one-sided paired test on the returns of the same test episodes.

    \b
    wm registry compare doom-2 doom-1
    wm registry compare doom@candidate random
    """
    from worldmodels.cli.show import find_root
    from worldmodels.cli.registry import compare_text, compare_versions

    result = compare_versions(find_root(), version, reference, alpha)
    _print_json(result) if as_json else typer.echo(compare_text(result))


@registry.command("promote")
def registry_promote(version: VersionName, alpha: Alpha = 0.05) -> None:
    """Make a version the champion, if it is better than the champion with statistical evidence.

    The first champion must beat the random policy. The reason is written on the version in any case; exit code 1 where the
    champion stays.

    \b
    wm registry promote doom@candidate
    """
    from worldmodels.cli.show import find_root
    from worldmodels.cli.registry import promote_version

    typer.echo(promote_version(find_root(), version, alpha))


@registry.command("rollback")
def registry_rollback(
    model: Annotated[str, typer.Argument(help="The game: doom, or worldmodels-doom.")],
    retire: Annotated[bool, typer.Option("--retire", help="Leave no champion instead.")] = False,
) -> None:
    """Point `champion` at the champion before this one.

    \b
    wm registry rollback doom
    """
    from worldmodels.cli.show import find_root
    from worldmodels.cli.registry import roll_back

    typer.echo(roll_back(find_root(), model, retire=retire))


@registry.command("history")
def registry_history(
    model: Annotated[str, typer.Argument(help="The game: doom, or worldmodels-doom.")],
    as_json: Json = False,
) -> None:
    """Tell which versions were champion, since when, and why.

    \b
    wm registry history doom
    """
    from worldmodels.cli.registry import champions, champions_text
    from worldmodels.cli.show import find_root

    rows = champions(find_root(), model)
    _print_json(rows) if as_json else typer.echo(champions_text(rows))


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
