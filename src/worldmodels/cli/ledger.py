"""``wm ledger``: the scores of runs in ``results/ledger.csv``, and what README and ``docs/results.md`` show of them.

The ledger is the one source of every score that a page shows. A row is one agent on a block of episodes.
``results/headlines.csv`` names the rows of the table in README. No stage reads or writes either.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from worldmodels.errors import ArtifactError, ParamsError
from worldmodels.report.figures import figure, frame
from worldmodels.report.pictures import png_bytes
from worldmodels.report.statistics import draws_of_means, interval
from worldmodels.report.style import PAPER_COLOUR, SERIES, WORLD_COLOURS
from worldmodels.report.table import GAMES, game_name, markdown, with_error
from worldmodels.rollout.scores import read_blind
from worldmodels.storage.files import read_json, write_bytes
from worldmodels.storage.layout import METRICS, NO_STUDY, AgentFiles
from worldmodels.tracking.course import TIMES, read_times
from worldmodels.tracking.git import git
from worldmodels.tracking.plan import read_plan

LEDGER, HEADLINES = Path("results/ledger.csv"), Path("results/headlines.csv")
README, PAGE, PICTURE = Path("README.md"), Path("docs/results.md"), Path("docs/images/ledger.png")
COLUMNS = (
    "run", "preset", "game", "agent", "chain_seed", "controller_seed", "block", "n", "mean", "std", "stderr", "dream",
    "minutes", "hardware", "commit",
)  # fmt: skip
BEGIN, END = "<!-- ledger -->", "<!-- /ledger -->"
_IDENTITY = ["run", "game", "agent", "chain_seed", "controller_seed", "block"]
_WHOLE, _REAL = ("chain_seed", "controller_seed", "n"), ("mean", "std", "stderr", "dream", "minutes")
_NUMBERS: dict[str, Any] = dict.fromkeys(_WHOLE, "Int64") | dict.fromkeys(_REAL, "Float64")


def add(root: Path, run: str, *, hardware: str = "", folders: Sequence[Path] = ()) -> str:
    """Add the scores of the run that is here to the ledger; a row with the same run, agent and seeds is replaced.

    Args:
        root: the project's folder.
        run: name of the run, one word.
        hardware: what it ran on, for example ``AMD EPYC, 2 cores, bf16``.
        folders: of projects whose scores are added instead, such as the seeds of ``wm replicate``.

    Returns:
        What was added, in words.

    Raises:
        ParamsError: the name cannot be used.
        ArtifactError: there are no scores, or a file lacks what a row needs.
    """
    if not run or any(letter.isspace() or letter == "," for letter in run):
        raise ParamsError(f"{run!r} is no name of a run: write one word, such as my-laptop.")
    rows = [{"run": run, "hardware": hardware} | row for folder in folders or [root] for row in _scored(folder)]
    added = pd.DataFrame([{name: _cell(row.get(name)) for name in COLUMNS} for row in rows])
    before = [_read(root / LEDGER, COLUMNS)] if (root / LEDGER).exists() else []
    table = pd.concat([*before, added]).drop_duplicates(_IDENTITY, keep="last")
    write_bytes(root / LEDGER, table.to_csv(index=False, lineterminator="\n").encode())
    agents = ", ".join(dict.fromkeys(row["agent"] for row in rows))
    return f"{LEDGER} has the rows of {run}: {agents}. `wm ledger write` writes the pages anew."


def write(root: Path) -> str:
    """Write the table in README, and the tables and the figure of ``docs/results.md``; return what was written.

    Raises:
        ArtifactError: the ledger or the headlines are not as they must be, or a page has no markers.
    """
    ledger, headlines = read_ledger(root / LEDGER), read_headlines(root / HEADLINES)
    short = headline_table(ledger, headlines)
    texts = {README: short, PAGE: results(ledger, short)}
    pages = {page: with_table(page, (root / page).read_text(encoding="utf-8"), text) for page, text in texts.items()}
    for page, text in pages.items():
        write_bytes(root / page, text.encode())
    games = sorted(ledger["game"].unique(), key=[*GAMES, *ledger["game"]].index)
    panels = [minutes_plot(ledger, headlines, game) for game in games]
    write_bytes(root / PICTURE, png_bytes(np.concatenate(panels, axis=1)))
    return f"{README} and {PAGE} hold what {LEDGER} says."


def read_ledger(path: Path) -> pd.DataFrame:
    """Read and check a ledger.

    Returns:
        One row an agent and seed, columns ``COLUMNS``. An unknown text is empty, an unknown number is NA. ``mean``
        and ``dream`` are sums of rewards over an episode. ``minutes`` is the wall-clock time from nothing to that agent.

    Raises:
        ArtifactError: the file is missing, or a column, a number or a row is not as it must be.
    """
    table = _read(path, COLUMNS)
    for name, kind in _NUMBERS.items():
        try:
            table[name] = pd.to_numeric(table[name].replace("", None)).astype(kind)
        except (TypeError, ValueError) as error:
            raise ArtifactError(f"{path}, column {name}: {error}") from None
    for line, row in enumerate(table.to_dict("records"), start=2):
        missing = [name for name in ("run", "game", "agent", "mean") if pd.isna(row[name]) or row[name] == ""]
        if missing:
            raise ArtifactError(f"{path}, line {line}: {', '.join(missing)} must be given.")
        if any(pd.isna(row[name]) for name in ("n", "std", "stderr")):
            continue
        expected = row["std"] / math.sqrt(row["n"])
        if abs(row["stderr"] - expected) > 0.02 * expected + 0.6:  # published errors are rounded to whole numbers
            raise ArtifactError(f"{path}, line {line}: stderr is {row['stderr']}; std / sqrt(n) is {expected:.2f}.")
    for row in table[table.duplicated(_IDENTITY)].to_dict("records"):
        raise ArtifactError(f"{path} has two rows of {row['agent']} in {row['run']} with the same seeds.")
    return table


def read_headlines(path: Path) -> pd.DataFrame:
    """Read which rows of the ledger README shows: game, the agent in words, run, agent. Lines of the same words are one row.

    Raises:
        ArtifactError: the file is missing or has other columns.
    """
    return _read(path, ("game", "words", "run", "agent"))


def headline_table(ledger: pd.DataFrame, headlines: pd.DataFrame) -> str:
    """Return the table that README and the page of results begin with, in Markdown.

    Raises:
        ArtifactError: a row that the headlines name is not in the ledger.
    """
    found = headlines.merge(ledger, on=["game", "run", "agent"], how="left", sort=False)
    for row in found[found["mean"].isna()].to_dict("records"):
        raise ArtifactError(f"The ledger has no row of {row['agent']} in the run {row['run']}, which README shows.")
    lines = [
        {"game": GAMES.get(str(game), str(game)), "agent": str(words)} | _summary(rows)
        for (game, words), rows in found.groupby(["game", "words"], sort=False)
    ]
    return _markdown(lines, ("game", "agent", "score", "n", "seeds", "minutes"))


def run_table(rows: pd.DataFrame) -> str:
    """Return rows of the ledger as a table in Markdown, one line for every agent of a run; its seeds stand in that line."""
    lines = [
        {"run": str(run), "agent": str(agent), "preset": group["preset"].iloc[0], "block": str(block)} | _summary(group)
        for (run, agent, block), group in rows.groupby(["run", "agent", "block"], sort=False)
    ]
    shown = ("run", "agent", "preset", "block", "score", "std", "n", "seeds", "dream", "minutes", "hardware", "commit")
    return _markdown(lines, shown)


def results(ledger: pd.DataFrame, short: str) -> str:
    """Return what stands between the markers of the page of results. ``short``: the table of the headlines."""
    parts = ["## In short", short, f"![Score over minutes]({PICTURE.relative_to(PAGE.parent)})"]
    for game, rows in ledger.groupby("game", sort=False):
        parts += [f"## {GAMES.get(str(game), game)}", run_table(rows)]
    return "\n\n".join(parts)


def with_table(page: Path, text: str, table: str) -> str:
    """Return the text of a page with ``table`` between its markers; ArtifactError if it has not each marker once, in order."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end or BEGIN in rest or END in after:
        raise ArtifactError(f"{page} must have one {BEGIN} and, after it, one {END}: the tables of results go between them.")
    return f"{before}{BEGIN}\n{table}\n{END}{after}"


@figure
def minutes_plot(axes: Axes, ledger: pd.DataFrame, headlines: pd.DataFrame, game: str) -> None:
    """Draw score over minutes from nothing; random play, the best blind policy and the paper are lines."""
    known = ledger[(ledger["game"] == game) & ledger["minutes"].notna() & (ledger["block"] != "development")]
    for number, (run, rows) in enumerate(known.groupby("run", sort=False)):
        again, place = divmod(number, len(SERIES))
        minutes, mean, error = (rows[name].astype(float) for name in ("minutes", "mean", "stderr"))
        axes.errorbar(minutes, mean, error.fillna(0), fmt="os^D"[again % 4], label=str(run), color=SERIES[place])
    for row in headlines.merge(ledger[ledger["game"] == game], on=["game", "run", "agent"]).to_dict("records"):
        blind = row["agent"].startswith(("random", "blind"))
        if blind or row["run"] == "published":
            colour = WORLD_COLOURS["random"] if blind else PAPER_COLOUR
            axes.axhline(row["mean"], color=colour, linewidth=1, linestyle="--", zorder=0)
            style: Any = {"transform": axes.get_yaxis_transform(), "fontsize": 7, "color": colour, "va": "bottom"}
            axes.text(0.01, row["mean"], row["agent"], **style)
    frame(axes, GAMES.get(game, game), "minutes from nothing", "score in the game")
    axes.legend(fontsize=7, loc="lower right")


def _read(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """Return a table of texts with these columns."""
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path} cannot be read: {error}") from None
    if tuple(table.columns) != tuple(columns):
        raise ArtifactError(
            f"{path} has the columns {', '.join(table.columns)}; they must be {', '.join(columns)}, in this order."
        )
    return table


def _scored(folder: Path) -> list[dict[str, Any]]:
    """Return the rows of all scores of a project, with its commit."""
    files = sorted((folder / METRICS).glob("*.json"))
    if not files:
        raise ArtifactError(f"{folder / METRICS} has no scores. `dvc repro evaluate` makes them.")
    commit = git(folder, "rev-parse", "--short", "HEAD") or ""
    return [row | {"commit": commit} for file in files for row in _rows(folder, file)]


def _rows(root: Path, file: Path) -> list[dict[str, Any]]:
    """Return the row of an agent, or a row for every policy that does not look if the score is of the random one."""
    score = read_json(file)
    try:
        study = score.get("study", NO_STUDY)
        preset = score["preset"].partition("+")[0]  # the studies of params.yaml follow it
        preset += "" if study == NO_STUDY else f"+{study}"
        about = {"preset": preset, "game": game_name(score["rules"]), "block": score["block"]}
        if score["key"] == f"{score['environment']}-0":
            _, policies = read_blind(AgentFiles(score["key"], root).returns)
            return [about | row | {"agent": _blind(name)} for name, row in policies.items()]
        seeds = {"chain_seed": score["seed"], "controller_seed": score["controller_seed"]}
        dream = (score["dream"] or {}).get("mean")
        told = {"agent": score["key"], "minutes": _minutes(root, score["key"])}
        return [told | about | seeds | {**score["real"], "dream": dream}]
    except (KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(f"{file} is no score ({error!r}). `dvc repro evaluate@{file.stem}` makes it again.") from None


def _blind(policy: str) -> str:
    return policy if policy == "random" else f"blind: {policy}"


def _cell(value: Any) -> str:
    if pd.isna(value):
        return ""
    return f"{round(value, 2):.12g}" if isinstance(value, float) else str(value)


def _summary(rows: pd.DataFrame) -> dict[str, str]:
    """Return the cells of a line of a table: the seeds of one agent taken together."""
    means, errors = rows["mean"].astype(float), rows["stderr"].astype(float)
    error = means.std(ddof=1) / math.sqrt(len(rows)) if len(rows) > 2 else errors.mean(skipna=False)
    seeds = f"{len(rows)}: " + ", ".join(f"{mean:,.0f}" for mean in means) if len(rows) > 1 else ""
    one_recipe = len(rows[["run", "preset"]].drop_duplicates()) == 1 and rows["chain_seed"].nunique() == len(rows)
    if len(rows) > 2 and one_recipe and errors.notna().all():
        low, high = interval(draws_of_means(means.to_numpy(), errors.to_numpy()))
        seeds += f"; 95 %: {low:,.0f} to {high:,.0f}"
    return {
        "score": with_error(means.mean(), error),
        "seeds": seeds,
        **{name: _span(rows[name].dropna()) for name in ("std", "n", "dream", "minutes")},
        **{name: ", ".join(dict.fromkeys(filter(None, rows[name]))) for name in ("hardware", "commit")},
    }


def _span(values: pd.Series) -> str:
    return " to ".join(dict.fromkeys(f"{value:,.0f}" for value in (values.min(), values.max()))) if len(values) else ""


def _markdown(lines: Sequence[Mapping[str, str]], columns: Sequence[str]) -> str:
    right = [place for place, name in enumerate(columns) if name in ("score", "std", "n", "dream", "minutes")]
    return markdown([columns, *([row[name] for name in columns] for row in lines)], right)


def _minutes(root: Path, agent: str) -> float | None:
    """Return the minutes of all stages from nothing to an agent, one after the other; None if not all were measured."""
    times, last = read_times(root / TIMES), f"controller@{agent}"
    try:
        return sum(times[stage][1] for stage in read_plan(root, last, [last]).covered) / 60
    except (LookupError, TypeError, ValueError, OSError):
        return None
