"""Where and when an agent of Take Cover is hit: what its score is made of.

    python benchmarks/hits.py [AGENT] [--episodes 96] [--figure FILE.png]

Episodes of no other use. The player's place along the wall, its health and its moves are read from the engine, which neither V,
M nor C can see. A turn is a step whose move differs from the one before.
"""

import argparse
import io
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from worldmodels.agent.agent import load_agent
from worldmodels.rollout.loop import run_episodes
from worldmodels.games.base import EnvStep
from worldmodels.games.doom import DoomConfig, DoomEnv, buttons
from worldmodels.report.style import WORLD_COLOURS
from worldmodels.seeds import episode_seeds

PLACE, TURN, AGE = "place along the wall, map units", "tics since the last turn", "age, tics"
EDGES = {
    PLACE: tuple(range(0, 769, 96)),  # the room is 768 wide
    TURN: (0, 8, 16, 24, 32, 48, 64, 96, 128, 10_000),
    AGE: (0, 300, 600, 900, 1200, 1500, 2101),
}


class WatchedDoom(DoomEnv):
    """Take Cover, with a record of what the engine knows: place, health and move, an episode's steps one after the other."""

    def __init__(self, config: DoomConfig) -> None:
        super().__init__(config)
        self.seen: dict[int, list[tuple[float, float, int]]] = {}

    def step(self, actions: np.ndarray) -> EnvStep:
        import vizdoom

        result = super().step(actions)
        for seed, game, action in zip(self._clock.seeds.tolist(), self._engines, actions[:, 0], strict=True):
            place, health = (
                game.get_game_variable(name) for name in (vizdoom.GameVariable.POSITION_Y, vizdoom.GameVariable.HEALTH)
            )
            left, right = buttons(float(action))
            self.seen.setdefault(seed, []).append((place, health, right - left))
        return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("agent", nargs="?", default="pretrained/doom", type=Path)
    parser.add_argument("--episodes", type=int, default=96)
    parser.add_argument("--figure", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    agent = load_agent(options.agent)
    rules = DoomConfig.model_validate(agent.card.game)
    env = WatchedDoom(rules)
    world = agent.real_world(env)
    try:
        returns = run_episodes(world, agent.policy(), episode_seeds("selection", options.episodes, stream="hits"), lanes=48)
    finally:
        world.close()
    played = pd.concat([table(steps, rules.frame_skip) for steps in env.seen.values()])
    error = returns.total.std(ddof=1) / options.episodes**0.5
    hits = played["hit"].sum() / options.episodes
    head = f"{returns.total.mean():.0f} ± {error:.0f} tics (n={options.episodes}), {hits:.2f} hits a life"
    print(f"{options.agent}: {head}")
    shares = {name: by(played, name, edges, rules.frame_skip) for name, edges in EDGES.items()}
    for name, rows in shares.items():
        print(f"\n{name}\n{rows.round(3).to_string()}")
    if options.figure:
        options.figure.write_bytes(draw(shares, head))


def table(steps: list[tuple[float, float, int]], skip: int) -> pd.DataFrame:
    """Return an episode's steps: where, how old, how long since the last turn (tics), and whether it was hit."""
    place, health, move = map(np.array, zip(*steps, strict=True))
    step = np.arange(len(steps))
    turned = np.maximum.accumulate(np.where(np.diff(move, prepend=move[0]) != 0, step, 0))
    return pd.DataFrame(
        {PLACE: place, TURN: skip * (step - turned), AGE: skip * step, "hit": np.diff(health, prepend=100.0) < 0}
    )


def by(played: pd.DataFrame, name: str, edges: tuple[float, ...], skip: int) -> pd.DataFrame:
    """Return the share of the time and of the hits between two edges each, and the hits in 1,000 tics there."""
    found = played.groupby(pd.cut(played[name], edges, right=False), observed=False)["hit"].agg(["size", "sum"])
    found.index = [f"{low:g}-" for low in edges[:-1]]
    rate = 1000 * found["sum"] / (skip * found["size"]).clip(lower=1)
    return pd.DataFrame(
        {"time": found["size"] / len(played), "hits": found["sum"] / played["hit"].sum(), "in 1,000 tics": rate}
    )


def draw(shares: dict[str, pd.DataFrame], head: str) -> bytes:
    """Draw the shares of time and hits as bars, as a PNG."""
    figure = Figure(figsize=(11, 3.4), dpi=144, layout="constrained")
    figure.suptitle(f"Take Cover: where C is, and where it is hit\n{head}", fontsize=10)
    for axes, (name, rows) in zip(figure.subplots(1, len(shares), sharey=True), shares.items(), strict=True):
        at = np.arange(len(rows))
        axes.bar(at - 0.2, rows["time"], 0.4, color=WORLD_COLOURS["random"], label="time")
        axes.bar(at + 0.2, rows["hits"], 0.4, color=WORLD_COLOURS["real"], label="hits")
        axes.set_xticks(at, rows.index, rotation=60, fontsize=8)
        axes.set_xlabel(name)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        axes.legend(frameon=False)
    canvas = FigureCanvasAgg(figure)
    with io.BytesIO() as png:
        canvas.print_png(png)
        return png.getvalue()


if __name__ == "__main__":
    main()
