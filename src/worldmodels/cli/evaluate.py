"""``wm evaluate`` and ``wm dream``: an agent put to the test, and filmed."""

import os
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from worldmodels.cli.agents import find_agent
from worldmodels.errors import ParamsError

if TYPE_CHECKING:
    import numpy as np

    from worldmodels.agent.agent import Agent
    from worldmodels.rollout.world import World
    from worldmodels.shapes import Episode, Returns

LANES = 16
STRIP = 12  # pictures in a filmstrip


@dataclass(frozen=True)
class Evaluation:
    """What ``wm evaluate`` reports.

    Attributes:
        temperature: of the dream; None in the game.
        summary: mean, std, stderr, n, min, max, mean_length, seeds.
        returns: of every episode, in the order of the seeds.
    """

    agent: str
    environment: str
    world: Literal["real", "dream"]
    rules: str
    backend: str
    temperature: float | None
    summary: dict[str, Any]
    returns: list[float]

    def as_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return dict(vars(self))

    def as_text(self) -> str:
        """As lines for a person."""
        from worldmodels.report.table import with_error

        own, error = self.summary, self.summary["stderr"] if self.summary["n"] > 1 else float("nan")
        tau = "" if self.temperature is None else f", temperature {self.temperature:g}"
        lines = [
            f"{self.agent} in the {self.world} {self.environment}{tau}",
            f"return   {with_error(own['mean'], error)} (mean ± standard error of {own['n']} episodes)",
            f"spread   std {own['std']:.0f}, {own['min']:.0f} to {own['max']:.0f}",
            f"length   {own['mean_length']:.0f} steps on average",
            f"rules    {self.rules}",
            f"backend  {self.backend}",
        ]
        return "\n".join(lines)


class Match:
    """Test episodes ``start`` to ``start + episodes - 1`` of an agent, in the game or in its dream."""

    def __init__(
        self, root: Path, text: str, *, world: Literal["real", "dream"], temperature: float | None, episodes: int, start: int
    ) -> None:
        self._found = find_agent(root, text)
        import torch

        from worldmodels.seeds import episode_seeds

        torch.set_num_threads(1)  # as in the evaluate stage: other counts can change the last bits
        self._world = world
        self._agent = self._found.load()
        self._temperature = self._found.temperature(temperature)
        if world == "dream":
            self._seeds = episode_seeds("dream", episodes, stream="test", start=start)  # those of the evaluate stage
        else:
            self._seeds = episode_seeds("test", episodes, start=start)

    def play(self) -> Evaluation:
        """Play all episodes."""
        from worldmodels.rollout.scores import summarise

        game = self._agent.game
        if self._world == "dream":
            backend, returns = "dream", self._play_dream()
        else:
            with closing(game.make(scoring=True)) as env:
                backend = env.backend
            returns = self._play_game()
        return Evaluation(
            agent=self._found.name,
            environment=self._agent.card.environment,
            world=self._world,
            rules=game.rules,
            backend=backend,
            temperature=self._temperature if self._world == "dream" else None,
            summary=summarise(returns),
            returns=[float(total) for total in returns.total[0]],
        )

    def film(self, path: Path) -> None:
        """Play the first episode again, which gives the same, and film it."""
        if self._world == "dream":
            dream = self._agent.dream_world(temperature=self._temperature)
            _write_video(path, {"dream": _record(dream, self._agent, self._seeds[0]).frames}, self._agent)
            return
        from worldmodels.report.demonstration import film_episode

        with closing(self._agent.game.make(scoring=True)) as env:
            world = self._agent.real_world(env)
            views, _ = film_episode(self._agent, world, seed=self._seeds[0], temperature=self._temperature)
        _write_video(path, views, self._agent)

    def _play_dream(self) -> "Returns":
        from worldmodels.agent.play import play_dream

        return play_dream(self._agent, self._temperature, self._seeds)

    def _play_game(self) -> "Returns":
        """Play on all cores, with a progress bar if a person is looking."""
        from tqdm import tqdm

        from worldmodels.agent.play import play_real
        from worldmodels.compute.cores import cores
        from worldmodels.compute.local import run_tasks
        from worldmodels.rollout.evaluation import shards
        from worldmodels.rollout.scores import join

        workers = cores()
        size = max(1, min(LANES, -(-len(self._seeds) // workers)))
        tasks = [(self._agent, self._agent.game, part, size) for part in shards(self._seeds, size, workers)]
        done: dict[int, Returns] = {}
        with tqdm(total=len(self._seeds), desc="real", unit="episode", leave=False, disable=None) as bar:
            for index, result in run_tasks(play_real, tasks, workers):
                done[index] = result
                bar.update(result.total.size)
        return join([done[index] for index in range(len(tasks))])


def film_dream(root: Path, text: str, *, steps: int | None, temperature: float | None, start: int, out: Path) -> str:
    """Let an agent act in its own dream, draw it to ``out`` (.png, .mp4 or .gif), and say how it went."""
    found = find_agent(root, text)
    import torch

    from worldmodels.seeds import episode_seeds

    torch.set_num_threads(1)
    agent, tau = found.load(), found.temperature(temperature)
    seed = episode_seeds("demonstration", 1, start=start)[0]
    episode = _record(agent.dream_world(temperature=tau, limit=steps), agent, seed)
    played = len(episode.actions)
    if out.suffix.lower() == ".png":
        from worldmodels.report.pictures import filmstrip, write_png

        note = f"{found.name}, temperature {tau:g}, dream {start}"
        write_png(out, filmstrip({"dream": episode.frames}, every=max(1, -(-len(episode.frames) // STRIP)), note=note))
    else:
        _write_video(out, {"dream": episode.frames}, agent)
    end = "until it was over" if episode.terminal else "as long as it was let"
    return f"{out}: {found.name} dreamt {played} steps at temperature {tau:g}, {end}; return {episode.rewards.sum():.0f}."


def check_output(path: Path, suffixes: Sequence[str]) -> None:
    """Refuse a file that cannot be written, before anything is played.

    Raises:
        ParamsError: the suffix is another, the path is a folder, or its folder can be neither used nor made.
    """
    if path.suffix.lower() not in suffixes:
        *most, last = suffixes
        allowed = f"{', '.join(most)} or {last}" if most else last
        raise ParamsError(f"{path}: cannot write a file with the suffix {path.suffix or '(none)'!r}. Use {allowed}.")
    if os.path.isdir(path):
        raise ParamsError(f"{path} is a folder: name a file in it.")
    place = next(folder for folder in path.absolute().parents if os.path.exists(folder))
    if not os.path.isdir(place) or not os.access(place, os.W_OK | os.X_OK):
        raise ParamsError(f"{path}: files cannot be written below {place}.")


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Give a path beside ``path`` to write to; what was written goes to ``path`` if the block succeeds, and nowhere if not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.stem}.partial{path.suffix}")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _record(world: "World", agent: "Agent", seed: int) -> "Episode":
    from worldmodels.rollout.loop import EpisodeRecorder, run_episodes

    kept: list[Episode] = []
    run_episodes(world, agent.policy(), [seed], recorder=EpisodeRecorder(kept.append))
    return kept[0]


def _write_video(path: Path, views: "dict[str, np.ndarray]", agent: "Agent") -> None:
    from worldmodels.report.video import side_by_side, write_video

    with whole(path) as partial:
        write_video(partial, side_by_side(views), fps=agent.game.frames_a_second, scale=1)
