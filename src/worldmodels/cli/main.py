"""``wm``: look at, measure and watch what the pipeline made.

Every command imports what it needs when it runs, so that ``wm --help`` does not wait for torch and MLflow.
Exit codes: 0 done, 1 failed, 2 wrong usage or params.
"""

import os
import select
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from worldmodels.cli.commands import agents, params, recordings, results, tracking


class ErrorGroup(TyperGroup):
    """Shows an error that a person can act on as one message instead of a traceback."""

    def invoke(self, ctx: Any) -> Any:
        from worldmodels.errors import WorldModelsError

        try:
            return super().invoke(ctx)
        except (WorldModelsError, OSError) as error:  # OSError: a file that cannot be written, a full disk
            if isinstance(error, BrokenPipeError) and _nobody_reads():
                raise typer.Exit(0) from None
            if ctx.params.get("debug") or os.environ.get("WM_DEBUG", "0") not in ("", "0"):
                raise
            typer.echo(f"wm: {error}", err=True)
            raise typer.Exit(error.exit_code if isinstance(error, WorldModelsError) else 1) from None


def _nobody_reads() -> bool:
    """Return whether the reader of our output is gone, as in ``wm show | head -1``; if so, write no more."""
    try:
        number = sys.stdout.fileno()
    except (OSError, ValueError):  # in a test, or closed
        return False
    ends = select.poll()
    ends.register(number, select.POLLOUT)
    if not any(told & select.POLLERR for _, told in ends.poll(0)):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), number)
    return True


app = typer.Typer(
    cls=ErrorGroup,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    help="World Models: agents that learn inside their own dream of a game, measured in the real game.",
    epilog="Start with `wm show` (what exists), then `wm evaluate doom-1 --episodes 5 --video doom.mp4`.",
)
for group in (agents, recordings, results, params, tracking):
    app.add_typer(group.commands)


@app.callback()
def wm(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks of errors (also: WM_DEBUG=1).")] = False,
) -> None:
    """Options of every command."""


def main() -> None:
    """Entry point of ``wm``."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal without ± gets ?, not a crash
    app(prog_name="wm")


if __name__ == "__main__":
    main()
