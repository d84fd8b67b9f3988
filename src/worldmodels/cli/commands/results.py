"""Commands that say what exists, and on what machine."""

from typing import Annotated

import typer

from worldmodels.cli.folder import find_root, project_folder
from worldmodels.cli.options import Json, print_json

commands = typer.Typer()
ledger = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="The ledger of scores that the pages are made from.")
commands.add_typer(ledger, name="ledger")


@commands.command(short_help="What exists: agents, scores, hashes.")
def show(
    next_steps: Annotated[bool, typer.Option("--next-steps", help="Say how a run went, and what to try next.")] = False,
    as_json: Json = False,
) -> None:
    """Show what exists: agents with their scores, the hashes of artifacts, and what is missing."""
    from worldmodels.cli.show import next_steps_text, overview, overview_text

    found = overview(project_folder())
    if as_json:
        print_json(found)
        return
    typer.echo(next_steps_text(found) if next_steps else overview_text(found))


@commands.command(short_help="Check this machine; say what to do.")
def doctor(as_json: Json = False) -> None:
    """Check Python, packages, rendering, GPU, disk, MLflow's store and DVC on this machine; give a verdict on each."""
    from worldmodels.cli.doctor import examine

    verdicts = []
    for verdict in examine(find_root()):
        verdicts.append(verdict)
        if not as_json:
            typer.echo(verdict.as_text())
    if as_json:
        print_json([verdict._asdict() for verdict in verdicts])
    if any(verdict.status == "fail" for verdict in verdicts):
        if not as_json:
            typer.echo("\nSomething that is required does not work: see the lines that say `fail`.", err=True)
        raise typer.Exit(1)


@ledger.command("add", short_help="Append the scores of the run that is here.")
def ledger_add(
    run: Annotated[str, typer.Option(help="Name of the run, one word. A row of the same run, agent and seeds is replaced.")],
    hardware: Annotated[str, typer.Option(help="The machine that it ran on, such as `AMD EPYC, 2 cores, bf16`.")] = "",
    replicas: Annotated[str, typer.Option(metavar="PRESET", help="Add the seeds of `wm replicate PRESET` that are done.")] = "",
) -> None:
    """Append a row for every scored agent in metrics/ to results/ledger.csv, with the minutes that its stages took.

    \b
    wm ledger add --run my-laptop --hardware "AMD EPYC, 2 cores, bf16"
    wm ledger add --run laptop-seeds --replicas laptop
    """
    from worldmodels.cli.ledger import add
    from worldmodels.cli.replicate import finished

    root = project_folder()
    typer.echo(add(root, run, hardware=hardware, folders=finished(root, replicas) if replicas else []))


@ledger.command("write", short_help="Write the tables of README and docs anew.")
def ledger_write() -> None:
    """Write docs/results.md, its figure and the table in README from results/ledger.csv."""
    from worldmodels.cli.ledger import write

    typer.echo(write(project_folder()))
