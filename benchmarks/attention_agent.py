"""Our agents against AttentionAgent (Tang, Nguyen, Ha 2020) on the same episodes of both games, plain and varied.

    python benchmarks/attention_agent.py FOLDER [--game doom] [--variation wall] [--episodes 100] [--out scores.csv]
    python benchmarks/attention_agent.py FOLDER --game doom --diagnose

FOLDER holds their released weights, ``TakeCover.npz`` and ``CarRacing.npz`` (one vector ``params`` each), and for the
variations ``wall`` and ``floor`` their ``take_cover_wall.wad`` and ``take_cover_floor.wad``. None of it is in this
repository. Without FOLDER the script says so and ends.

Both play the same seeds by the same rules. Their agent acts at every tic of Take Cover and sees 640x480 pixels with the status
bar; ours holds an action for 4 tics and sees 160x120. In a variation both see what is drawn over the picture before
either resizes it. Neither learned on a variation. Episodes that are in ``--out`` are not played again.

``--diagnose`` lets our agent play the plain game, repeats its actions in each varied game, so that the states are the same,
and says what the varied pictures do to V, to M and to C.
"""

import argparse
import csv
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import torch
from attention_diagnosis import FINDINGS, diagnose
from attention_games import VARIATIONS, open_car, our_games, start_doom, varied, wad_of
from attention_peer import AttentionAgent

import worldmodels
from worldmodels.agent.agent import Agent
from worldmodels.games.base import GameConfig
from worldmodels.games.doom import DoomConfig, buttons
from worldmodels.rollout.loop import run_episodes
from worldmodels.seeds import episode_seeds

ROOT = Path(__file__).parents[1]
WEIGHTS = {"doom": "TakeCover.npz", "carracing": "CarRacing.npz"}
CHANNELS = "rgb"
SCORES = ["game", "variation", "n", "ours", "AttentionAgent", "ours - theirs", "ours, varied - plain", "theirs, varied - plain"]
"""Mean and standard error of scores, and of differences of the two scores of the same episode."""
COLUMNS = ["game", "variation", "block", "agent", "seed", "score", "steps"]

Scores = Iterator[tuple[int, float, int]]  # seed, score, steps


def play_ours(agent: Agent, variation: str, seeds: Sequence[int], folder: Path) -> Scores:
    """Play with V, M and C as ``wm evaluate`` does."""
    for start in range(0, len(seeds), 50):
        with closing(agent.real_world(our_games(agent.game, variation, folder))) as world:
            played = run_episodes(world, agent.policy(), seeds[start : start + 50], lanes=16)
        yield from zip(played.seeds.tolist(), played.total[0].tolist(), played.length[0].tolist(), strict=True)


def play_doom(agent: AttentionAgent, variation: str, seeds: Sequence[int], folder: Path, limit: int, channels: str) -> Scores:
    """Play Take Cover with their agent: an action at every tic."""
    setup = DoomConfig(resolution="640x480").setup
    game = start_doom(setup, wad_of(folder, variation), render_hud=True)
    try:
        for seed in seeds:
            game.set_seed(seed)
            game.new_episode()
            agent.start()
            first = game.get_episode_time()
            while not game.is_episode_finished() and game.get_episode_time() - first < limit:
                picture = varied(game.get_state().screen_buffer, variation)
                game.make_action(buttons(float(agent.act(picture[..., ::-1] if channels == "bgr" else picture)[0])), 1)
            yield seed, float(game.get_episode_time() - first), game.get_episode_time() - first
    finally:
        game.close()


def play_car(agent: AttentionAgent, variation: str, seeds: Sequence[int], config: GameConfig) -> Scores:
    """Drive CarRacing with their agent."""
    with closing(open_car(config, variation, dashboard=True)) as game:
        for seed in seeds:
            picture, _ = game.reset(seed=seed)
            agent.start()
            score, steps, over = 0.0, 0, False
            while not over:
                steer, gas, brake = agent.act(picture)
                controls = np.array([steer, (gas + 1) / 2, (brake + 1) / 2], np.float32)
                picture, reward, terminal, cut, _ = game.step(controls)
                score, steps, over = score + float(reward), steps + 1, terminal or cut
            yield seed, score, steps


class Table:
    """Episodes that were played, by what they are; each new one is appended to a file, if there is one."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._rows: dict[tuple[Any, ...], float] = {}
        if path is not None and path.is_file():
            with path.open(newline="") as file:
                for row in csv.DictReader(file):
                    self._rows[(*(row[name] for name in COLUMNS[:4]), int(row["seed"]))] = float(row["score"])

    def of(self, *key: str) -> dict[int, float]:
        """Return seed -> score of a game, variation, block and agent."""
        return {seed: score for (*other, seed), score in self._rows.items() if tuple(other) == key}

    def play(self, key: tuple[str, ...], seeds: Sequence[int], play: Callable[[list[int]], Scores]) -> None:
        """Play those of the episodes that are missing."""
        missing = [seed for seed in seeds if seed not in self.of(*key)]
        for seed, score, steps in play(missing) if missing else ():
            self._rows[(*key, seed)] = score
            if self._path is not None:
                new = not self._path.is_file()
                with self._path.open("a", newline="") as file:
                    writer = csv.writer(file, lineterminator="\n")
                    writer.writerows([COLUMNS] * new + [[*key, seed, f"{score:.4f}", steps]])


def mean_and_error(values: Sequence[float]) -> str:
    """Return a mean and its standard error as text; nothing of fewer than two.

    >>> mean_and_error([1.0, 3.0])
    '2.0 ± 1.0'
    """
    if len(values) < 2:
        return ""
    return f"{np.mean(values):.1f} ± {np.std(values, ddof=1) / len(values) ** 0.5:.1f}"


def compare(table: Table, game: str, variation: str, block: str, seeds: Sequence[int]) -> None:
    """Print a row of ``SCORES``, over the episodes that both agents have played."""
    ours, theirs = (table.of(game, variation, block, agent) for agent in ("ours", "attention"))
    both = [seed for seed in seeds if seed in ours and seed in theirs]
    row = [game, variation, str(len(both)), *(mean_and_error([each[seed] for seed in both]) for each in (ours, theirs))]
    row += [mean_and_error([ours[seed] - theirs[seed] for seed in both])]
    for varied_scores, agent in ((ours, "ours"), (theirs, "attention")):
        plain = table.of(game, "plain", block, agent)
        costs = [varied_scores[seed] - plain[seed] for seed in both if seed in plain]
        row.append("" if variation == "plain" else mean_and_error(costs))
    print_row(row)


def print_row(cells: Sequence[str]) -> None:
    """Print a row of a table in Markdown."""
    print(f"| {' | '.join(cells)} |", flush=True)


def play(agent: Agent, args: argparse.Namespace, game: str, variation: str, table: Table, seeds: list[int]) -> None:
    """Play what is missing of a game and a variation, and compare."""
    key, folder = (game, variation, args.block), args.folder
    table.play((*key, "ours"), seeds, lambda missing: play_ours(agent, variation, missing, folder))
    theirs = AttentionAgent(np.load(folder / WEIGHTS[game])["params"], agent.memory.action)
    ways: dict[str, Callable[[list[int]], Scores]] = {
        "doom": lambda missing: play_doom(theirs, variation, missing, folder, agent.game.limit, args.channels),
        "carracing": lambda missing: play_car(theirs, variation, missing, agent.game),
    }
    table.play((*key, "attention"), seeds, ways[game])
    compare(table, game, variation, args.block, seeds)


def main() -> None:
    parser = argparse.ArgumentParser(description="Our agents against AttentionAgent on the same episodes.")
    parser.add_argument("folder", type=Path, nargs="?", help="of TakeCover.npz, CarRacing.npz and the two .wad files")
    parser.add_argument("--game", choices=["doom", "carracing", "both"], default="both")
    parser.add_argument("--variation", default="plain", help="plain, wall, floor, text, colours, bars, blob, or all")
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--block", choices=["test", "development"], default="test")
    parser.add_argument("--channels", choices=["rgb", "bgr"], default=CHANNELS, help="as AttentionAgent sees Take Cover")
    parser.add_argument("--out", type=Path, help="CSV of the episodes; those in it are not played again")
    parser.add_argument("--diagnose", action="store_true", help="what the variations do to V, M and C")
    args = parser.parse_args()
    if args.folder is None:
        print("skipped: name the folder of AttentionAgent's released weights, TakeCover.npz and CarRacing.npz")
        return
    torch.set_num_threads(1)
    table, seeds = Table(args.out), episode_seeds(args.block, args.episodes)
    header = FINDINGS if args.diagnose else SCORES
    print_row(header)
    print_row(["---"] * len(header))
    for game in VARIATIONS if args.game == "both" else [args.game]:
        agent: Agent = worldmodels.load(str(ROOT / "pretrained" / game))
        if args.diagnose:
            for row in diagnose(agent, game, seeds, args.folder):
                print_row(row)
            continue
        for variation in VARIATIONS[game] if args.variation == "all" else [args.variation]:
            if variation not in VARIATIONS[game]:
                parser.error(f"{game} has the variations {', '.join(VARIATIONS[game])}")
            play(agent, args, game, variation, table, seeds)


if __name__ == "__main__":
    main()
