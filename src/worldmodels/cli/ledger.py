"""``wm ledger``: from the scores of a run to the ledger, and from the ledger to the pages."""

import math
import subprocess
from collections.abc import Sequence
from pathlib import Path

from worldmodels.errors import ParamsError
from worldmodels.report.ledger import LEDGER, add_rows
from worldmodels.report.results_page import PAGE, README, write_results_page


def add(root: Path, run: str, *, hardware: str, minutes: Sequence[str]) -> str:
    """Append the scores of the run that is here; return what was added.

    Args:
        root: the project's folder.
        run: name of the run.
        hardware: what it ran on.
        minutes: ``agent=number``.

    Raises:
        ParamsError: the name or a number cannot be used.
    """
    if not run or any(letter.isspace() or letter == "," for letter in run):
        raise ParamsError(f"{run!r} is no name of a run: write one word, such as my-laptop.")
    known = dict(_minutes(each) for each in minutes)
    agents = add_rows(root, run, hardware=hardware, commit=_commit(root), minutes=known)
    return f"{LEDGER} has the rows of {run}: {', '.join(agents)}. `wm ledger write` writes the pages anew."


def write(root: Path) -> str:
    """Write the pages that are made from the ledger; return what was written."""
    write_results_page(root)
    return f"{README} and {PAGE} hold what {LEDGER} says."


def _minutes(text: str) -> tuple[str, float]:
    agent, _, number = text.partition("=")
    try:
        minutes = float(number)
    except ValueError:
        minutes = math.nan
    if not agent or not math.isfinite(minutes) or minutes < 0:
        raise ParamsError(f"--minutes {text!r}: write AGENT=MINUTES, such as doom-4=67.")
    return agent, minutes


def _commit(root: Path) -> str:
    """Return the commit that is checked out; empty outside of git."""
    try:
        asked = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=root, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return asked.stdout.strip() if asked.returncode == 0 else ""
