"""Commands for MLflow: the record of runs, and the registry of agents."""

import os
import sys
from typing import Annotated

import typer

from worldmodels.cli.browser import open_on_desktop
from worldmodels.cli.folder import find_root, project_folder
from worldmodels.cli.options import Alpha, Json, VersionName, print_json

commands = typer.Typer()
track = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="MLflow: the record of what the pipeline made.")
commands.add_typer(track, name="track")
registry = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Release agents: compare versions, move `champion`.")
commands.add_typer(registry, name="registry")


@track.command("sync")
def track_sync() -> None:
    """Make MLflow hold what dvc.lock says: one run for every stage, one model version for every agent.

    If you run it twice, nothing changes. It rebuilds an MLflow database that was deleted.
    """
    from worldmodels.tracking.experiments import mirror_experiments
    from worldmodels.tracking.sync import sync

    root = project_folder()
    typer.echo(f"MLflow holds what dvc.lock says: {sync(root)}")
    added = mirror_experiments(root)
    if added:
        typer.echo(f"{added} experiments added.")


@track.command("ui")
def track_ui(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port on this machine.")] = 5000,
) -> None:
    """Serve MLflow's pages of this project's runs on this machine, until Ctrl-C; on a desktop, open them.

    If MLFLOW_TRACKING_URI is a server already, print the addresses of its pages.
    """
    from worldmodels.tracking.pages import game_pages
    from worldmodels.tracking.store import opened, redact, tracking_uri

    root = project_folder()
    store = tracking_uri(root)
    served = store.startswith(("http://", "https://"))
    address = store.rstrip("/") if served else f"http://127.0.0.1:{port}"
    with opened(root) as client:
        pages = {game: f"{address}/{page}" for game, page in game_pages(client).items()}
    if not pages:
        typer.echo("Nothing was run yet: the pages will be empty. `make repro` runs the pipeline.", err=True)
    for game, page in {"MLflow": address, **pages}.items():
        print(redact(f"{game}: {page}"), flush=True)
    if served:
        return
    print("Ctrl-C ends it.", flush=True)
    open_on_desktop(port, next(iter(pages.values()), address))
    # One worker and no job runner: 0.5 GB and 8 s to start, instead of 2.1 GB and 23 s.
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", store, "--workers", "1"]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    os.execve(command[0], command, os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"})


@registry.command("list")
def registry_list(
    model: Annotated[str | None, typer.Argument(help="List one game only: doom, or worldmodels-doom.")] = None,
    as_json: Json = False,
) -> None:
    """List registered versions: aliases, scores, and what the gate said.

    \b
    wm registry list doom
    """
    from worldmodels.cli.registry import list_text, list_versions

    rows = list_versions(find_root(), model)
    print_json(rows) if as_json else typer.echo(list_text(rows))


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

    The gate is a one-sided paired test on the returns of the same test episodes.

    \b
    wm registry compare doom-2 doom-1
    wm registry compare doom@candidate random
    """
    from worldmodels.cli.registry import compare_text, compare_versions

    result = compare_versions(find_root(), version, reference, alpha)
    print_json(result) if as_json else typer.echo(compare_text(result))


@registry.command("promote")
def registry_promote(version: VersionName, alpha: Alpha = 0.05) -> None:
    """Make a version the champion, if it is better than the champion with statistical evidence.

    The first champion must beat the random policy. The reason is written on the version in any case. The exit code is 1 if
    the champion stays.

    \b
    wm registry promote doom@candidate
    """
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

    rows = champions(find_root(), model)
    print_json(rows) if as_json else typer.echo(champions_text(rows))
