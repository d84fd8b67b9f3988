"""What several chain seeds of one recipe scored: a table of a game, an agent a line."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from worldmodels.report.statistics import chance_above, draws, estimate, improvement, interquartile_mean, mean
from worldmodels.report.table import align, paper, read_scores, title
from worldmodels.storage.files import read_table
from worldmodels.storage.layout import AgentFiles

HEADS = ("mean of seeds", "95 %", "middle half", "above blind", "above paper", "each seed")
WORDS = """95 %: two-level bootstrap over seeds and episodes. Middle half: the mean without the best and the worst quarter of
episodes. Above blind: how often an episode is better than one of the best policy that does not look. Above paper: how often
the mean of such seeds is above the paper's."""


class Summary(NamedTuple):
    """What seeds scored in a game."""

    text: str  # the table
    runs: list[np.ndarray]  # scores of the last agent, one array a seed
    blind: np.ndarray  # scores of the best policy that does not look


def summary(game: str, keys: Sequence[str], folders: Sequence[Path]) -> Summary:
    """Return what the seeds of a game scored.

    Args:
        game: its environment.
        keys: of agents, the last one last.
        folders: of projects, one a seed.

    Raises:
        ArtifactError: a score is missing or damaged.
    """
    score = read_scores(AgentFiles(keys[-1], folders[0]).scores)
    blind = _returns(AgentFiles(f"{game}-0", folders[0]), score["blind"]["policy"] if score["blind"] else "random")
    theirs = paper(score)
    lines, runs = [(title(score["rules"]), *HEADS)], list[np.ndarray]()
    for key in keys:
        runs = [_returns(AgentFiles(key, folder), "real") for folder in folders]
        drawn = draws(runs)
        found = estimate(runs, mean, drawn)
        paper_text = f"{chance_above(drawn, theirs['mean'], theirs['stderr']):.0%}" if theirs else "-"
        numbers = f"{found.value:,.0f}", f"{found.low:,.0f} to {found.high:,.0f}", f"{interquartile_mean(runs):,.0f}"
        each = ", ".join(f"{scores.mean():,.0f}" for scores in runs)
        lines.append((key, *numbers, f"{improvement(runs, blind):.0%}", paper_text, each))
    return Summary(align(lines, right=range(1, 6)), runs, blind)


def _returns(files: AgentFiles, world: str) -> np.ndarray:
    table = read_table(files.returns, ("world", "total"))
    return table.loc[table["world"] == world, "total"].to_numpy(dtype=float)
