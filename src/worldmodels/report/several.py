"""What several chain seeds of one recipe scored: of each game a sentence, a table, a figure; and the page that shows them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from worldmodels.report.comparisons import profile_lines
from worldmodels.report.html import page
from worldmodels.report.pictures import png_bytes
from worldmodels.report.statistics import chance_above, draws, improvement, interquartile_mean, interval, mean
from worldmodels.report.table import paper, read_scores, title
from worldmodels.storage.files import read_table
from worldmodels.storage.layout import AgentFiles

HEADS = ("mean of seeds", "95 %", "middle half", "above blind", "above paper", "each seed")
WORDS = """95 %: two-level bootstrap over seeds and episodes. Middle half: the mean without the best and the worst quarter of
episodes. Above blind: how often an episode is better than one of the best policy that does not look. Above paper: how often
the mean of such seeds is above the paper's."""


class Summary(NamedTuple):
    """What seeds scored in a game."""

    title: str  # of the game
    agent: str  # the last one
    sentence: str  # on the last agent
    table: list[tuple[str, ...]]  # a line of heads, then an agent a line
    seeds: Mapping[int, Path]  # the folder of each seed's project
    note: str  # what stands below the table
    figures: dict[str, float]  # of the last agent, by name
    png: bytes  # which share of the last agent's episodes scored at least so much


def summary(game: str, keys: Sequence[str], seeds: Mapping[int, Path], limit: float | None, minutes: float) -> Summary:
    """Return what the seeds of a game scored.

    Args:
        game: its environment.
        keys: of agents, the last one last.
        seeds: the folder of each seed's project.
        limit: of the game, if a score is how long an episode lasted.
        minutes: that the stages of all seeds took.

    Raises:
        ArtifactError: a score is missing or damaged.
    """
    first = next(iter(seeds.values()))
    score = read_scores(AgentFiles(keys[-1], first).scores)
    blind = _returns(AgentFiles(f"{game}-0", first), score["blind"]["policy"] if score["blind"] else "random")
    theirs, name = paper(score), title(score["rules"])
    lines, figures = list[tuple[str, ...]]([(name, *HEADS)]), dict[str, float]()
    for key in keys:
        runs = [_returns(AgentFiles(key, folder), "real") for folder in seeds.values()]
        drawn = draws(runs)
        means = [mean(each) for each in drawn]
        low, high = map(float, interval(means))
        figures = {"mean": mean(runs), "low": low, "high": high, "interquartile_mean": interquartile_mean(runs)}
        figures["above_blind"] = improvement(runs, blind)
        figures |= {"above_paper": chance_above(means, theirs["mean"], theirs["stderr"])} if theirs else {}
        numbers = f"{figures['mean']:,.0f}", f"{low:,.0f} to {high:,.0f}", f"{figures['interquartile_mean']:,.0f}"
        chances = (f"{figures[each]:.0%}" if each in figures else "-" for each in ("above_blind", "above_paper"))
        lines.append((key, *numbers, *chances, ", ".join(f"{scores.mean():,.0f}" for scores in runs)))
    found, span = lines[-1][1:3]
    played = f"{len(runs[0])} {score['block']} episodes"
    named, rate = ", ".join(map(str, seeds)), f"{minutes / len(seeds):.0f} minutes a seed, its stages summed."
    if len(seeds) == 1:
        sentence, note = f"{keys[-1]} gets {found} (95 %: {span}), on {played}.", f"Seed {named}; {rate}"
    else:
        sentence = f"{keys[-1]} gets {found} in the mean of {len(seeds)} seeds (95 %: {span}), on {played} of each."
        note = f"Seeds {named}; {rate}"
    return Summary(name, keys[-1], sentence, lines, seeds, note, figures, png_bytes(profile_lines(runs, drawn, blind, limit)))


def several_page(preset: str, games: Sequence[Summary]) -> bytes:
    """Return the page of a preset, which needs no other file."""
    return page("several.html.jinja", preset=preset, games=games, words=WORDS)


def _returns(files: AgentFiles, world: str) -> np.ndarray:
    table = read_table(files.returns, ("world", "total"))
    return table.loc[table["world"] == world, "total"].to_numpy(dtype=float)
