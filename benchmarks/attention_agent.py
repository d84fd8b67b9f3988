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
import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import gymnasium
import numpy as np
import pygame
import torch
from gymnasium.envs.box2d.car_racing import WINDOW_H, WINDOW_W
from PIL import Image, ImageDraw, ImageFont

import worldmodels
from worldmodels.agent.agent import Agent
from worldmodels.games import doom_engine
from worldmodels.games.base import BatchEnv, GameConfig
from worldmodels.games.carracing import GAME, ROWS, ROWS_KEPT, CarRacingConfig, car_controls
from worldmodels.games.carracing_drawing import QuickCarRacing
from worldmodels.games.doom import DoomConfig, DoomEnv, buttons
from worldmodels.games.gym_lanes import GymEnv
from worldmodels.games.gym_open import make_quietly
from worldmodels.memory.features import select_features
from worldmodels.rollout.loop import EpisodeRecorder, run_episodes
from worldmodels.seeds import episode_seeds
from worldmodels.shapes import Episode, Job
from worldmodels.vision.model import sample_latent, to_images

ROOT = Path(__file__).parents[1]
VARIATIONS = {"doom": ["plain", "wall", "floor", "text"], "carracing": ["plain", "colours", "bars", "blob"]}
WEIGHTS = {"doom": "TakeCover.npz", "carracing": "CarRacing.npz"}
CHANNELS = "rgb"
SCORES = ["game", "variation", "n", "ours", "AttentionAgent", "ours - theirs", "ours, varied - plain", "theirs, varied - plain"]
"""Mean and standard error of scores, and of differences of the two scores of the same episode."""
FINDINGS = ["game", "variation", "n", "steps", "V's error", "V's error, plain", "z moved", "M's surprise", "C acts otherwise"]
"""What pictures do to V, M and C, as a mean over steps; in brackets as a multiple of V's error with plain pictures, or M's
surprise minus that with plain pictures: it may be below 0, and then a multiple would say nothing.

The first error is that of V's picture against the picture that V saw, the second against the plain picture of the same state,
both summed over pixels. Latents moved by so much of their variance. M's surprise is its negative log-likelihood of the next
latent in nats per dimension. C acts otherwise: the share of steps at which it presses another button, or how far it steers
elsewhere (-1 to 1).
"""
COLUMNS = ["game", "variation", "block", "agent", "seed", "score", "steps"]
SIDE, PATCH, STRIDE, BEST, HIDDEN, KEY = 96, 7, 4, 10, 16, 4
ACROSS = (SIDE - PATCH) // STRIDE + 1  # 23 patches in a row and in a column
SHIFT = 51  # by how much the variation ``colours`` changes red, green and blue of the road and of the grass, at most


class AttentionAgent:
    """Their agent, from one vector of parameters: self-attention names the places that an LSTM looks at.

    ``params`` is layer by layer (queries, keys, LSTM, output), biases before weights, each row by row.
    """

    def __init__(self, params: np.ndarray, action_size: int) -> None:
        inputs = PATCH * PATCH * 3
        attention = [(KEY,), (KEY, inputs)] * 2
        lstm = [(4 * HIDDEN,), (4 * HIDDEN,), (4 * HIDDEN, HIDDEN), (4 * HIDDEN, 2 * BEST)]
        shapes = [*attention, *lstm, (action_size,), (action_size, HIDDEN)]
        sizes = [int(np.prod(shape)) for shape in shapes]
        if params.shape != (sum(sizes),):
            raise ValueError(f"an agent with {action_size} actions has {sum(sizes)} parameters, not {params.shape}")
        parts = np.split(params.astype(np.float32), np.cumsum(sizes)[:-1])
        self._parts = [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]
        self.start()

    def start(self) -> None:
        """Begin an episode: the state of the LSTM is zero."""
        self._hidden, self._cell = np.zeros(HIDDEN, np.float32), np.zeros(HIDDEN, np.float32)

    def importance(self, image: np.ndarray) -> np.ndarray:
        """Return how much all patches together look at each one, (529,), for an image (96, 96, 3) in [0, 1]."""
        query_bias, query, key_bias, key = self._parts[:4]
        seen = patches(image)
        queries = (seen @ query.T + query_bias) / np.float32(seen.shape[1] ** 0.5)
        logits = queries @ (seen @ key.T + key_bias).T
        total: np.ndarray = torch.from_numpy(logits).softmax(1).sum(0).numpy()
        return total

    def act(self, picture: np.ndarray) -> np.ndarray:
        """Return an action (A,) in [-1, 1] for a picture (height, width, 3) uint8, and remember it."""
        if picture.shape[:2] != (SIDE, SIDE):
            picture = shrunk(picture)
        seen = places(self.importance(picture.astype(np.float32) / 255))
        bias_hidden, bias_input, weight_hidden, weight_input, bias, weight = self._parts[4:]
        gates = weight_input @ seen + bias_input + weight_hidden @ self._hidden + bias_hidden
        enter, forget, new, leave = np.split(gates, 4)
        self._cell = sigmoid(forget) * self._cell + sigmoid(enter) * np.tanh(new)
        self._hidden = sigmoid(leave) * np.tanh(self._cell)
        action: np.ndarray = np.tanh(weight @ self._hidden + bias)
        return action


def shrunk(picture: np.ndarray) -> np.ndarray:
    """Return a picture in 96 x 96, by PIL's bilinear filter: torch has the same, up to a rounding (1 of 255), in less time."""
    batch = torch.from_numpy(np.ascontiguousarray(picture)[None]).permute(0, 3, 1, 2)
    small = torch.nn.functional.interpolate(batch, (SIDE, SIDE), mode="bilinear", antialias=True)
    return small[0].permute(1, 2, 0).numpy()


def patches(image: np.ndarray) -> np.ndarray:
    """Return the patches (529, 147) of an image (96, 96, 3), row by row, each flattened row, column, channel."""
    windows = np.lib.stride_tricks.sliding_window_view(image, (PATCH, PATCH), (0, 1))[::STRIDE, ::STRIDE]
    return np.ascontiguousarray(windows.transpose(0, 1, 3, 4, 2)).reshape(ACROSS * ACROSS, -1)


def places(importance: np.ndarray) -> np.ndarray:
    """Return the centres (row, column) of the ten most important patches in [0, 1], (20,), the most important one first."""
    best = np.argsort(-importance, kind="stable")[:BEST]
    centres = np.stack([best // ACROSS, best % ACROSS], 1) * STRIDE + PATCH // 2
    return centres.astype(np.float32).ravel() / SIDE


def sigmoid(x: np.ndarray) -> np.ndarray:
    """Return 1 / (1 + exp(-x))."""
    result: np.ndarray = 1 / (1 + np.exp(-x))
    return result


@functools.cache
def overlay(variation: str, width: int, height: int) -> Image.Image | None:
    """Return what a variation draws over a picture of that size (RGBA); None if it draws nothing."""
    full = Image.new("RGBA", (640, 480) if variation == "text" else (SIDE, SIDE))
    draw = ImageDraw.Draw(full)
    if variation == "text":  # two words, about 100 x 30 pixels at (150, 30)
        for x, word, colour in ((150, "WORLD", (0, 255, 0, 255)), (207, "MODEL", (255, 0, 0, 255))):
            font = ImageFont.load_default(size=16)
            draw.text((x, 30), word, fill=colour, font=font, stroke_width=1, stroke_fill=colour)
    elif variation == "bars":
        for left in (0, SIDE - 8):
            draw.rectangle((left, 0, left + 7, SIDE), fill=(0, 0, 0, 255))
    elif variation == "blob":  # the car stays at (48, 72) of the picture, so this follows it
        draw.ellipse((28, 62, 37, 71), fill=(255, 0, 0, 255))
    else:
        return None
    return full if full.size == (width, height) else full.resize((width, height), Image.Resampling.BOX)


def varied(picture: np.ndarray, variation: str) -> np.ndarray:
    """Return a picture (height, width, 3) uint8 with what a variation draws over it."""
    over = overlay(variation, picture.shape[1], picture.shape[0])
    if over is None:
        return picture
    box = left, top, right, bottom = over.getbbox() or (0, 0, 1, 1)
    under = Image.fromarray(picture[top:bottom, left:right]).convert("RGBA")
    changed = picture.copy()
    changed[top:bottom, left:right] = Image.alpha_composite(under, over.crop(box)).convert("RGB")
    return changed


class VariedDoom(DoomEnv):
    """Take Cover as our agent sees it, varied. ``wad``: the scenario's file; None: the one that ships with ViZDoom."""

    def __init__(self, config: DoomConfig, variation: str, wad: Path | None) -> None:
        super().__init__(config, 1)
        self._variation, self._wad = variation, wad

    def _start_engine(self) -> Any:
        return start_doom(self._config.setup, self._wad)

    def _look(self, lane: int) -> None:
        picture = varied(self._engines[lane].get_state().screen_buffer, self._variation)
        self._pictures[lane] = picture[: len(self._pictures[lane])]  # the crop is at the bottom alone


class VariedCarRacing(QuickCarRacing):
    """CarRacing, varied. With a ``dashboard`` the lower rows show it as Gymnasium's do; else they are black."""

    def __init__(self, variation: str, dashboard: bool, **kwargs: Any) -> None:
        super().__init__(ROWS_KEPT, **kwargs)
        self.road_color: Any
        self.bg_color: Any
        self.grass_color: Any
        self._variation, self._dashboard = variation, dashboard
        self._texts: dict[str, Any] = {}  # what is written, by the text: drawing it takes long

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        if self._variation == "colours":
            assert seed is not None
            self._init_colors()
            road, grass = np.random.default_rng(seed).integers(-SHIFT, SHIFT + 1, (2, 3))
            self.road_color = self.road_color + road
            self.bg_color, self.grass_color = (np.clip(c + grass, 0, 255) for c in (self.bg_color, self.grass_color))
        return super().reset(seed=seed, options=options)

    def _render(self, mode: str) -> Any:
        picture = super()._render(mode)
        if mode != "state_pixels":
            return picture
        if self._dashboard:
            picture[ROWS_KEPT:] = self._lower_rows()
        return varied(picture, self._variation)

    def _lower_rows(self) -> np.ndarray:
        """Return the rows of the dashboard, drawn as Gymnasium draws them, up to a rounding (1 of 255)."""
        pygame.font.init()
        self.surf = pygame.Surface((WINDOW_W, WINDOW_H))
        self._render_indicators(WINDOW_W, WINDOW_H)
        told = f"{self.reward:04.0f}"
        if told not in self._texts:
            font = pygame.font.Font(pygame.font.get_default_font(), 42)
            self._texts[told] = font.render(told, True, (255, 255, 255), (0, 0, 0))
        place = self._texts[told].get_rect()
        place.center = (60, WINDOW_H - WINDOW_H * 2.5 / 40.0)
        self.surf.blit(self._texts[told], place)
        above = WINDOW_H * ROWS_KEPT // ROWS
        lower = pygame.transform.smoothscale(
            self.surf.subsurface((0, above, WINDOW_W, WINDOW_H - above)), (SIDE, ROWS - ROWS_KEPT)
        )
        return pygame.surfarray.array3d(lower).transpose(1, 0, 2)


def start_doom(setup: doom_engine.Setup, wad: Path | None, **switches: bool) -> Any:
    """Start an engine with another file of the scenario, and with switches such as ``render_hud``."""
    plain = doom_engine.configured

    def configured(told: doom_engine.Setup) -> Any:
        game = plain(told)
        if wad is not None:
            game.set_doom_scenario_path(str(wad))
        for name, value in switches.items():
            getattr(game, f"set_{name}")(value)
        return game

    with mock.patch.object(doom_engine, "configured", configured):
        return doom_engine.start_surely(setup)


def wad_of(folder: Path, variation: str) -> Path | None:
    """Return the scenario's file of a variation; None if it is the one that ships with ViZDoom."""
    return folder / f"take_cover_{variation}.wad" if variation in ("wall", "floor") else None


def open_car(config: GameConfig, variation: str, *, dashboard: bool) -> Any:
    """Make one game of CarRacing."""
    kwargs = {"variation": variation, "dashboard": dashboard}
    return make_quietly(replace(gymnasium.spec(GAME), entry_point=VariedCarRacing, kwargs=kwargs), config.limit, {})


def our_games(game: GameConfig, variation: str, folder: Path) -> BatchEnv:
    """Return the games that our agent plays."""
    if isinstance(game, DoomConfig):
        return VariedDoom(game, variation, wad_of(folder, variation))
    assert isinstance(game, CarRacingConfig)
    make = functools.partial(open_car, game, variation, dashboard=False)
    return GymEnv(game, make, car_controls, game.action_size, crop=game.cut)


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


class Seen(NamedTuple):
    """What our agent makes of the pictures of episodes: a row a step."""

    latents: torch.Tensor  # mean of z, (N, Z)
    error: torch.Tensor  # V's squared error against the picture that it saw, summed over pixels, (N,)
    plain_error: torch.Tensor  # ... against the plain picture of the same state, (N,)
    surprise: torch.Tensor  # M's negative log-likelihood of the next z, nats per dimension, (N,)
    actions: torch.Tensor  # C's, (N, A)


@torch.inference_mode()
def look(agent: Agent, plain: Episode, frames: np.ndarray) -> Seen:
    """Show V, M and C the pictures ``frames`` (T+1, 64, 64, 3) in place of those of a plain episode, with its actions."""
    images, unchanged = (to_images(torch.from_numpy(each)) for each in (frames, plain.frames))
    mean, log_variance = agent.vision.encode(images)
    drawn = agent.vision.decode(mean)
    error, plain_error = ((drawn - each).square().sum((1, 2, 3))[:-1] for each in (images, unchanged))
    z = sample_latent(mean, log_variance, torch.randn(mean.shape, generator=torch.Generator().manual_seed(plain.seed)))
    policy, state = agent.policy(), agent.initial_state(1)
    policy.start([Job(0, plain.seed)])
    restart, surprise, actions = torch.ones(1, 1, dtype=torch.bool), [], []
    for step, taken in enumerate(torch.from_numpy(plain.actions)):
        now = z[step : step + 1]
        actions.append(policy.act(select_features(agent.config.features, now, agent.memory, state)))
        told, _, state = agent.memory(now[:, None], taken[None, None], restart, state)
        surprise.append(-told.latent.log_prob(z[None, None, step + 1]).mean().reshape(1))
        restart = torch.zeros_like(restart)
    return Seen(mean[:-1], error, plain_error, torch.cat(surprise), torch.cat(actions))


def replay(agent: Agent, variation: str, folder: Path, episode: Episode) -> np.ndarray:
    """Return the frames of a varied game in which the actions of a plain episode are taken.

    Raises:
        RuntimeError: other rewards come: the variation changes more than pictures.
    """
    frames = []
    with closing(our_games(agent.game, variation, folder)) as env:
        frames += [env.start([episode.seed])[0]]
        for action, reward in zip(episode.actions, episode.rewards, strict=True):
            step = env.step(action[None])
            if abs(float(step.rewards[0]) - float(reward)) > 1e-5:
                raise RuntimeError(
                    f"{variation}, seed {episode.seed}: the same actions give other rewards than in the plain game"
                )
            frames.append(step.frames[0])
    return np.stack(frames)


def diagnose(agent: Agent, game: str, seeds: Sequence[int], folder: Path) -> None:
    """Print a row of ``FINDINGS`` for each variation: what it does to V, M and C in the same states."""
    episodes: list[Episode] = []
    with closing(agent.real_world(our_games(agent.game, "plain", folder))) as world:
        run_episodes(world, agent.policy(), seeds, lanes=16, recorder=EpisodeRecorder(episodes.append))
    plain: list[Seen] = []
    for variation in VARIATIONS[game]:
        seen = [look(agent, each, replay(agent, variation, folder, each)) for each in episodes]
        plain = plain or seen
        before, now = (Seen(*(torch.cat(parts) for parts in zip(*each, strict=True))) for each in (plain, seen))
        error, plain_error, usual = (float(x.mean()) for x in (now.error, now.plain_error, before.error))
        moved = float((now.latents - before.latents).square().mean(0).sum() / before.latents.var(0).sum())
        surprise, expected = float(now.surprise.mean()), float(before.surprise.mean())
        other = (
            pressed(now.actions) != pressed(before.actions) if game == "doom" else (now.actions - before.actions).abs()[:, 0]
        )
        row = [game, variation, str(len(episodes)), str(len(now.error)), f"{error:.1f} ({error / usual:.2f})"]
        row += [f"{plain_error:.1f} ({plain_error / usual:.2f})", f"{moved:.3f}"]
        row += [f"{surprise:.3f} ({surprise - expected:+.3f})", f"{float(other.float().mean()):.3f}"]
        print_row(row)


def pressed(actions: torch.Tensor) -> torch.Tensor:
    """Return which button each action of Take Cover presses: -1 left, 0 none, 1 right."""
    return (actions > 1 / 3).int() - (actions < -1 / 3).int()


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
            diagnose(agent, game, seeds, args.folder)
            continue
        for variation in VARIATIONS[game] if args.variation == "all" else [args.variation]:
            if variation not in VARIATIONS[game]:
                parser.error(f"{game} has the variations {', '.join(VARIATIONS[game])}")
            play(agent, args, game, variation, table, seeds)


if __name__ == "__main__":
    main()
