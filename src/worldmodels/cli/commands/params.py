"""Commands that set or vary params, and run what follows from them."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from worldmodels.cli.folder import find_root, project_folder
from worldmodels.cli.options import Json, print_json, writable

commands = typer.Typer()


def _files(kind: str) -> Callable[[], list[str]]:
    def names() -> list[str]:
        from worldmodels.cli.presets import files_of

        return [path.stem for path in files_of(find_root(), kind)]

    return names


@commands.command(short_help="Put a set of parameters in force.")
def preset(
    name: Annotated[
        str,
        typer.Argument(
            autocompletion=_files("preset"),
            help="quick (up to an hour), laptop (hours), paper (months), or another of presets/ and presets/examples/.",
        ),
    ],
    study: Annotated[
        list[str] | None,
        typer.Option(autocompletion=_files("study"), help="A study in presets/studies/ to add; may be repeated."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite params.yaml; its edits are lost.")] = False,
) -> None:
    """Put a preset in force: copy it from presets/ or presets/examples/ over params.yaml. A study adds agents.

    \b
    wm preset laptop && make repro
    wm preset laptop --study ablation
    """
    from worldmodels.cli.presets import use_preset

    typer.echo(use_preset(project_folder(), name, study or [], force=force))


@commands.command(short_help="Validate the whole params.yaml.")
def check(
    frames: Annotated[
        Path | None, typer.Option(callback=writable(".png"), help="Also play each game at random, and show its frames there.")
    ] = None,
) -> None:
    """Validate the whole params.yaml before anything runs, and say about how long it takes.

    It checks every value, refuses unknown keys, and checks how world models and agents build on each other. Times are
    those of a run from nothing: what a stage has to do, divided by the rates of a machine in results/rates.csv.
    """
    from worldmodels.cli.presets import check_params

    root = project_folder()
    typer.echo(check_params(root))
    if frames is not None:
        from worldmodels.cli.frames import write_frames

        typer.echo(write_frames(root, frames))


@commands.command(short_help="Bring everything up to date: `dvc repro`, the games side by side.")
def repro(
    targets: Annotated[
        list[str] | None, typer.Argument(metavar="[STAGE]...", help="Run up to these, such as evaluate@doom-1. Default: all.")
    ] = None,
) -> None:
    """Run `dvc repro`, with the games side by side if the cores suffice; the results are the same.

    \b
    wm repro
    wm repro evaluate@doom-2
    """
    from worldmodels.cli.side_by_side import repro as run

    raise typer.Exit(run(project_folder(), targets or []))


@commands.command(short_help="Compute a preset from nothing with several seeds, and compare them.")
def replicate(
    name: Annotated[str, typer.Argument(autocompletion=_files("preset"), help="A preset, such as laptop.")],
    seeds: Annotated[
        str, typer.Option(help="Seeds with commas between them. A seed fixes all random numbers of a run.")
    ] = "0,1,2,3,4",
    game: Annotated[list[str] | None, typer.Option(help="Only this game, such as doom; may be repeated.")] = None,
    dry: Annotated[bool, typer.Option("--dry", help="Say what it would take, and run nothing.")] = False,
) -> None:
    """Compute a preset from nothing with several seeds, each in a clone of its own in replicas/; say what they score together.

    The same command goes on after an interruption, and prints the table when all is done. A seed that is done loses its frames.
    The table and its figure are also a page in replicas/, and a run in MLflow.

    \b
    wm replicate laptop --seeds 0,1,2
    wm replicate quick --game doom
    """
    from worldmodels.cli.replicate import parse_seeds
    from worldmodels.cli.replicate import replicate as run

    run(project_folder(), name, parse_seeds(seeds), game or [], dry=dry)


@commands.command(short_help="Run experiments over several values of params.")
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
    figure: Annotated[
        Path | None,
        typer.Option(callback=writable(".png"), help="Draw the scores over the first param: a path ending in .png."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Run one DVC experiment for every combination of values, and print a table of their scores.

    A key may be any that the config classes know, also one that params.yaml leaves at its default. Each experiment runs in a
    folder of its own and is a run in MLflow by its name. The same command continues a sweep. The exit code is 1 if one failed.

    \b
    wm sweep doom.evaluate.temperature=0.5,1.0,1.3 --target evaluate@doom-1
    wm sweep doom.controllers.learn.phases.learn.updates=30,60 seed=0,1,2 --target evaluate@doom-2 --dry
    wm sweep doom.memory.loss.done_weight=5,15 --figure done.png
    """
    from worldmodels.cli import sweep as sweeping

    table = sweeping.sweep(project_folder(), assignments, target or [], dry=dry, queue=queue)
    print_json(table) if as_json else typer.echo(sweeping.text(table))
    if figure is not None:
        from worldmodels.report.pictures import write_png

        write_png(figure, sweeping.figure(table))
    if any(row["state"] == "failed" for row in table):
        raise typer.Exit(1)
