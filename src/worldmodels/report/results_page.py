"""What pages make of the ledger: the table in README, ``docs/results.md`` and its figure."""

import io
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pandas as pd

from worldmodels.errors import ArtifactError
from worldmodels.report.ledger import LEDGER, read_ledger
from worldmodels.report.style import FAINT_INK, GRID, INK, PAPER_COLOUR, SERIES, WORLD_COLOURS
from worldmodels.storage.files import write_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PAGE = Path("docs/results.md")
PICTURE = Path("docs/images/ledger.png")
README = Path("README.md")
BEGIN, END = "<!-- ledger -->", "<!-- /ledger -->"
GAMES = {"take_cover": "Take Cover", "carracing": "CarRacing"}
"""Games as a page names them. A game that is not here stands under its own name."""
_OTHERS = ("published", "measured-again")
"""Runs that are not of this project's code, or were not scored by it."""


class Headline(NamedTuple):
    """A line of the table in README: an agent in words, and the rows of the ledger that it is the mean of."""

    game: str
    words: str
    rows: tuple[tuple[str, str], ...]  # (run, agent)


HEADLINES = (
    Headline("take_cover", "random play", (("doom-rounds", "random"),)),
    Headline(
        "take_cover", "best policy that does not look (changes side every 100 tics)", (("doom-rounds", "blind: sweep 100"),)
    ),
    Headline("take_cover", "preset `quick`, two iterations", (("quick", "doom-2"),)),
    Headline("take_cover", "preset `laptop`, four iterations, C learns in the dream alone", (("doom-hidden", "doom-4"),)),
    Headline(
        "take_cover",
        "four iterations, then C anew: the best of four runs of PPO in the dream",
        (("doom-hidden", "doom-4-runs"), ("laptop-seed-1", "doom-4-runs")),
    ),
    Headline(
        "take_cover",
        "that C after 40 updates of PPO in the game",
        (("doom-hidden", "doom-4-played"), ("laptop-seed-1", "doom-4-played")),
    ),
    Headline("take_cover", "the paper, C learns in the dream alone", (("published", "Ha & Schmidhuber 2018, tau 1.15"),)),
    Headline("carracing", "random play", (("carracing-one-go", "random"),)),
    Headline("carracing", "preset `quick`, one iteration", (("quick", "carracing-1"),)),
    Headline(
        "carracing", "preset `laptop`, twelve iterations, C learns in the dream alone", (("carracing-one-go", "carracing-12"),)
    ),
    Headline(
        "carracing", "that C after two phases in the game: fast, then safe", (("carracing-fast-safe", "carracing-12-safe"),)
    ),
    Headline("carracing", "the paper, C learns in the game", (("published", "Ha & Schmidhuber 2018"),)),
)


def headline_table(ledger: pd.DataFrame) -> str:
    """Return the table that README and the page of results begin with, in Markdown.

    Raises:
        ArtifactError: a row that ``HEADLINES`` names is not in the ledger.
    """
    lines = []
    for headline in HEADLINES:
        parts = []
        for run, agent in headline.rows:
            part = ledger[(ledger["run"] == run) & (ledger["agent"] == agent) & (ledger["game"] == headline.game)]
            if part.empty:
                raise ArtifactError(f"The ledger has no row of {agent} in the run {run}, which the table in README shows.")
            parts.append(part)
        rows = pd.concat(parts)
        lines.append([_game(headline.game), headline.words, _score(rows), _episodes(rows), _seeds(rows), _minutes(rows)])
    return _markdown(["game", "agent", "score", "n", "seeds", "minutes"], lines, right=(2, 3, 5))


def run_table(rows: pd.DataFrame) -> str:
    """Return rows of the ledger as a table in Markdown, one line for every agent of a run; its seeds stand in that line."""
    lines = []
    for (run, agent), group in rows.groupby(["run", "agent"], sort=False):
        std = "" if len(group) > 1 or pd.isna(group["std"].iloc[0]) else f"{group['std'].iloc[0]:,.0f}"
        dream = "" if group["dream"].isna().any() else f"{group['dream'].mean():,.0f}"
        lines.append(
            [
                str(run), str(agent), _score(group), std, _episodes(group), _seeds(group), dream, _minutes(group),
                _one(group["hardware"]), _one(group["commit"]),
            ]
        )  # fmt: skip
    headings = ["run", "agent", "score", "std", "n", "seeds", "dream", "minutes", "hardware", "commit"]
    return _markdown(headings, lines, right=(2, 3, 4, 6, 7))


_INTRODUCTION = f"""# Results

`wm ledger` makes this page from [`{LEDGER}`](../{LEDGER}). Edit the ledger, not the page.

A score is the mean sum of rewards of whole episodes in the game. In Take Cover it is the number of tics that the agent survives
(skill 4, at most 2,100), in CarRacing the points of a lap (at most 1,000 steps). The test episodes have fixed seeds. Nothing
was trained or selected on them.

- `±` is a standard error. If an agent has three seeds or more, it is the error over the seeds. If it has one or two, it is the
  error over the episodes; two seeds play the same episodes, so their errors are averaged.
- `n` is the number of test episodes of each seed.
- `dream` is the mean return of the same C in its dream.
- `minutes` is the wall-clock time from nothing to that agent, without tests.
- CarRacing is scored on gymnasium's tracks. An agent with `EnvPool` in its name is scored on EnvPool's tracks, which are other
  tracks: do not compare the two.
- An empty cell is not known.

Two runs with the same settings can differ by several times the error of a test. So one run is a lead and no proof.
"""
_END = "What each run was: [results](../results/README.md). What each idea was worth: [method](method.md) and [log](log.md).\n"


def results_page(ledger: pd.DataFrame) -> str:
    """Return the page of results in Markdown."""
    own = ledger[~ledger["run"].isin(_OTHERS)]
    parts = [
        _INTRODUCTION,
        "## In short\n",
        headline_table(ledger) + "\n",
        f"![Score over minutes]({PICTURE.relative_to(PAGE.parent)})\n",
    ]
    for game in dict.fromkeys(own["game"]):
        rows = own[own["game"] == game]
        studies = rows["preset"].str.contains("+", regex=False)
        parts += [f"## {_game(game)}\n", run_table(rows[~studies]) + "\n"]
        for preset in dict.fromkeys(rows["preset"][studies]):
            parts += [f"### {_game(game)}: the study `{preset}`\n", run_table(rows[rows["preset"] == preset]) + "\n"]
    others = ledger[ledger["run"].isin(_OTHERS)]
    if len(others):
        parts.append("## Scores of others, and of our agents by other code\n")
        parts += [f"### {_game(str(game))}\n\n{run_table(rows)}\n" for game, rows in others.groupby("game", sort=False)]
    parts.append(_END)
    return "\n".join(parts)


def figure(ledger: pd.DataFrame) -> "Figure":
    """Draw score over minutes from nothing, one panel a game; random play, the best blind policy and the paper are lines."""
    from matplotlib.figure import Figure

    own = ledger[~ledger["run"].isin(_OTHERS)]
    games = [game for game in dict.fromkeys(own["game"]) if own[own["game"] == game]["minutes"].notna().any()]
    page = Figure(figsize=(5.2 * max(1, len(games)), 3.9), layout="constrained")
    for axes, game in zip(page.subplots(1, max(1, len(games)), squeeze=False)[0], games, strict=False):
        _plot_minutes(axes, own[(own["game"] == game) & own["minutes"].notna()])
        for name, mean, colour in _levels(ledger, game):
            axes.axhline(mean, color=colour, lw=1, ls="--", zorder=0)
            axes.text(0.01, mean, name, transform=axes.get_yaxis_transform(), fontsize=6, color=colour, va="bottom")
        axes.set_title(_game(game), color=INK, fontsize=10)
    return page


def _plot_minutes(axes: "Axes", rows: pd.DataFrame) -> None:
    for number, (run, group) in enumerate(rows.groupby("run", sort=False)):
        mean, error = group["mean"].astype(float), group["stderr"].astype(float).fillna(0.0)
        marker, colour = "os^D"[number // len(SERIES) % 4], SERIES[number % len(SERIES)]
        axes.errorbar(
            group["minutes"].astype(float), mean, yerr=error, fmt=marker, ms=3.5, lw=1, capsize=2, label=str(run), color=colour
        )
    axes.set_xlabel("minutes from nothing", color=FAINT_INK, fontsize=8)
    axes.set_ylabel("score in the game", color=FAINT_INK, fontsize=8)
    axes.grid(color=GRID, lw=0.6)
    axes.tick_params(labelsize=7, colors=FAINT_INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=6, frameon=False, loc="lower right")


def _levels(ledger: pd.DataFrame, game: str) -> Iterator[tuple[str, float, str]]:
    """Yield the name, mean and colour of the headlines that are a line: random play, the best blind policy, the paper."""
    for run, agent in (pair for headline in HEADLINES if headline.game == game for pair in headline.rows):
        blind = agent == "random" or agent.startswith("blind")
        if blind or run == "published":
            row = ledger[(ledger["run"] == run) & (ledger["agent"] == agent) & (ledger["game"] == game)].iloc[0]
            yield agent, float(row["mean"]), WORLD_COLOURS["random"] if blind else PAPER_COLOUR


def write_results_page(root: Path) -> None:
    """Write ``docs/results.md``, its figure, and the table between the markers in README.

    Args:
        root: the project's folder.

    Raises:
        ArtifactError: the ledger is not as it must be, or README has no markers.
    """
    ledger = read_ledger(root / LEDGER)
    readme = with_table((root / README).read_text(), headline_table(ledger))
    write_bytes(root / PAGE, results_page(ledger).encode())
    write_bytes(root / README, readme.encode())
    picture = io.BytesIO()
    figure(ledger).savefig(picture, format="png", dpi=130, metadata={"Software": None})
    write_bytes(root / PICTURE, picture.getvalue())


def with_table(page: str, table: str) -> str:
    """Return a page with ``table`` between its markers; ArtifactError if the page has not each marker once, in order."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end or BEGIN in rest or END in after:
        raise ArtifactError(f"{README} must have one {BEGIN} and, after it, one {END}: the table of results goes between them.")
    return f"{before}{BEGIN}\n{table}\n{END}{after}"


def _game(name: str) -> str:
    return GAMES.get(name, name)


def _score(rows: pd.DataFrame) -> str:
    means, errors = rows["mean"].astype(float), rows["stderr"].astype(float)
    over_seeds = len(rows) > 2
    error = means.std(ddof=1) / math.sqrt(len(rows)) if over_seeds else errors.mean(skipna=False)
    return with_error(float(means.mean()), float(error))


def with_error(mean: float, error: float) -> str:
    """Return a mean and its standard error; decimals if the error is below ten; the mean alone if the error is not known.

    >>> with_error(1185.5, 46.6), with_error(916.4, 1.28), with_error(820.0, math.nan)
    ('1,186 ± 47', '916.4 ± 1.3', '820')
    """
    if math.isnan(error):
        return f"{mean:,.0f}"
    digits = 0 if error >= 10 else 1
    return f"{mean:,.{digits}f} ± {error:.{digits}f}"


def _seeds(rows: pd.DataFrame) -> str:
    return "" if len(rows) < 2 else f"{len(rows)}: " + ", ".join(f"{mean:,.0f}" for mean in rows["mean"])


def _episodes(rows: pd.DataFrame) -> str:
    numbers = rows["n"].dropna().unique()
    return "" if not len(numbers) else str(numbers[0]) if len(numbers) == 1 else f"{min(numbers)} to {max(numbers)}"


def _minutes(rows: pd.DataFrame) -> str:
    known = rows["minutes"].dropna()
    if known.empty:
        return ""
    low, high = float(known.min()), float(known.max())
    return f"{low:.0f}" if low == high else f"{low:.0f} to {high:.0f}"


def _one(values: pd.Series) -> str:
    return ", ".join(dict.fromkeys(value for value in values if value))


def _markdown(headings: Sequence[str], lines: Iterable[Sequence[str]], right: Sequence[int]) -> str:
    rules = ["---:" if column in right else "---" for column in range(len(headings))]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (list(headings), rules, *lines))
