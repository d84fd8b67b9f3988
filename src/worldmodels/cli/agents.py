"""Find an agent by what a person calls it; measure and film it."""

import json
import os
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from worldmodels.cli.show import chain, known_keys, nearest, sqlite_file
from worldmodels.errors import ArtifactError, ParamsError
from worldmodels.params import PARAMS_FILE, load_yaml
from worldmodels.storage.layout import Iteration, require
from worldmodels.tracking.store import tracking_uri

if TYPE_CHECKING:
    import numpy as np

    from worldmodels.agent.agent import Agent
    from worldmodels.games.make import EnvironmentConfig
    from worldmodels.rollout.world import World
    from worldmodels.shapes import Episode, Returns

REGISTRY = "models:/"
LANES = 16
STRIP = 12  # pictures in a filmstrip


@dataclass(frozen=True)
class Found:
    """An agent's folder, and what to call it."""

    name: str
    folder: Path


@dataclass(frozen=True)
class Evaluation:
    """What ``wm evaluate`` reports.

    Attributes:
        temperature: of the dream; None in reality.
        summary: mean, std, stderr, n, min, max, mean_length, seeds.
        returns: of every episode, in the order of the seeds.
        video: where the first episode was filmed.
    """

    agent: str
    environment: str
    world: Literal["real", "dream", "training"]
    rules: str
    backend: str
    temperature: float | None
    summary: dict[str, Any]
    returns: list[float]
    video: str | None

    def as_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return dict(vars(self))

    def as_text(self) -> str:
        """As lines for a person."""
        from worldmodels.report.table import with_error

        own, error = self.summary, self.summary["stderr"] if self.summary["n"] > 1 else float("nan")
        tau = "" if self.temperature is None else f", temperature {self.temperature:g}"
        place = {"training": "real"}.get(self.world, self.world)
        lines = [
            f"{self.agent} in the {place} {self.environment}{tau}",
            f"return   {with_error(own['mean'], error)} (mean ± standard error of {own['n']} episodes)",
            f"spread   std {own['std']:.0f}, {own['min']:.0f} to {own['max']:.0f}",
            f"length   {own['mean_length']:.0f} steps on average",
            f"rules    {self.rules}",
            f"backend  {self.backend}",
        ]
        if self.video:
            lines.append(f"video    {self.video} (the first episode, return {self.returns[0]:.0f})")
        return "\n".join(lines)


def find_agent(root: Path, text: str) -> Found:
    """Find an agent: a chain key, a folder that holds agent.json, or an MLflow model URI.

    Raises:
        ParamsError: where nothing is called so, with what is near.
        ArtifactError: where it is known but not made, with the command that makes it.
    """
    if text.startswith(REGISTRY):
        return Found(text, _download(root, text))
    for folder in (Path(text), Path(text) / "agent"):
        if os.path.isfile(folder / "agent.json"):  # False, no error, for what can be no path
            return Found(text.rstrip("/"), folder)
    known = known_keys(root)
    random = {f"{entry.get('env')}-0" for entry in chain(root).values()}
    if text in known or text in random:
        folder = Iteration(text, root).agent
        require(folder / "agent.json")
        return Found(text, folder)
    raise ParamsError(f"there is no agent `{text}`: no chain key, and no folder with agent.json.{nearest(text, known)}")


def evaluate_agent(
    root: Path,
    text: str,
    *,
    world: Literal["real", "dream", "training"],
    temperature: float | None,
    episodes: int,
    start: int,
    video: Path | None,
) -> Evaluation:
    """Play test episodes ``start`` to ``start + episodes - 1`` with an agent; film the first of them to ``video``.

    ``training`` is the game on the back end that trains, which may give other episodes for the same seeds.
    """
    found = find_agent(root, text)
    import torch

    from worldmodels.agent.agent import load_agent
    from worldmodels.games.make import make_env
    from worldmodels.rollout.loop import run_episodes
    from worldmodels.rollout.scores import summarise
    from worldmodels.seeds import episode_seeds

    torch.set_num_threads(1)  # as in the evaluate stage: other counts can change the last bits
    agent = load_agent(found.folder)
    game = game_of(found, agent)
    tau: float | None = None
    scoring = world != "training"
    with closing(make_env(game, scoring=scoring)) as env:
        place: World = agent.real_world(env)
        backend = env.backend
        if world == "dream":
            tau, backend = temperature_of(root, found, agent, temperature), "dream"
            place = agent.dream_world(temperature=tau)
            seeds = episode_seeds("dream", episodes, stream="test", start=start)  # those of the evaluate stage
            returns = run_episodes(place, agent.policy(), seeds)
        else:
            seeds = episode_seeds("test", episodes, start=start)
            returns = _play_real(agent, game, seeds, scoring=scoring)
        if video is not None:  # the same episode again: what it gives does not depend on how many are played beside it
            _write_video(video, _views(place, agent, seeds[0], tau, root, found), agent)
        return Evaluation(
            agent=found.name,
            environment=agent.card.environment,
            world=world,
            rules=env.preset,
            backend=backend,
            temperature=tau,
            summary=summarise(returns),
            returns=[float(total) for total in returns.total[0]],
            video=None if video is None else str(video),
        )


def _play_real(agent: "Agent", game: "EnvironmentConfig", seeds: list[int], *, scoring: bool) -> "Returns":
    """Play real episodes on all cores, with a progress bar where a person is looking."""
    from tqdm import tqdm

    from worldmodels.agent.play import play_real
    from worldmodels.compute.local import run_tasks
    from worldmodels.rollout.evaluation import shards
    from worldmodels.rollout.scores import join

    workers = len(os.sched_getaffinity(0))
    size = max(1, min(LANES, -(-len(seeds) // workers)))
    tasks = [(agent, game, part, size, scoring) for part in shards(seeds, size, workers)]
    done: dict[int, Returns] = {}
    with tqdm(total=len(seeds), desc="real", unit="episode", leave=False, disable=None) as bar:
        for index, result in run_tasks(play_real, tasks, workers):
            done[index] = result
            bar.update(result.total.size)
    return join([done[index] for index in range(len(tasks))])


def film_dream(root: Path, text: str, *, steps: int, temperature: float | None, start: int, out: Path) -> str:
    """Let an agent act in its own dream, draw it to ``out`` (.png, .mp4 or .gif), and say how it went."""
    from worldmodels.report.video import SUFFIXES

    if out.suffix.lower() not in (".png", *SUFFIXES):
        raise ParamsError(f"{out}: cannot draw a dream with the suffix {out.suffix or '(none)'!r}. Use .png, .mp4 or .gif.")
    found = find_agent(root, text)
    import torch

    from worldmodels.agent.agent import load_agent
    from worldmodels.seeds import episode_seeds

    torch.set_num_threads(1)
    agent = load_agent(found.folder)
    tau = temperature_of(root, found, agent, temperature)
    seed = episode_seeds("demonstration", 1, start=start)[0]
    episode = _record(agent.dream_world(temperature=tau, limit=steps), agent, seed)
    played = len(episode.actions)
    if out.suffix.lower() == ".png":
        from worldmodels.report.pictures import filmstrip, write_png

        note = f"{found.name}, temperature {tau:g}, dream {start}"
        write_png(out, filmstrip({"dream": episode.frames}, every=max(1, -(-len(episode.frames) // STRIP)), note=note))
    else:
        _write_video(out, {"dream": episode.frames}, agent)
    end = "until M ended it" if episode.terminal else "as long as it was let"
    return f"{out}: {found.name} dreamt {played} steps at temperature {tau:g}, {end}; return {episode.rewards.sum():.0f}."


def _views(world: "World", agent: "Agent", seed: int, tau: float | None, root: Path, found: Found) -> "dict[str, np.ndarray]":
    """Return an episode as it is filmed: a dream; or a real one, through V, and dreamt on the same actions."""
    from worldmodels.agent.agent import dream_rules
    from worldmodels.report.demonstration import film_episode
    from worldmodels.worlds.real import RealWorld

    if not isinstance(world, RealWorld):
        return {"dream": _record(world, agent, seed).frames}
    temperature = temperature_of(root, found, agent, tau)
    return film_episode(agent, world, seed=seed, temperature=temperature, limit=dream_rules(agent.card).limit).views()


def _record(world: "World", agent: "Agent", seed: int) -> "Episode":
    from worldmodels.rollout.loop import run_episodes
    from worldmodels.rollout.recorders import EpisodeRecorder

    kept: list[Episode] = []
    run_episodes(world, agent.policy(), [seed], recorder=EpisodeRecorder(kept.append))
    return kept[0]


def _write_video(path: Path, views: "dict[str, np.ndarray]", agent: "Agent") -> None:
    from worldmodels.report.video import frames_a_second, side_by_side, write_video

    write_video(path, side_by_side(views), fps=frames_a_second(agent.card.environment, agent.card.frame_skip), scale=1)


def game_of(found: Found, agent: "Agent") -> "EnvironmentConfig":
    """Return the rules of an agent's game."""
    from worldmodels.games.make import EnvironmentConfig
    from worldmodels.storage.agents import read_part

    game: EnvironmentConfig = read_part(found.folder, agent.card.game, "game", EnvironmentConfig)
    return game


def temperature_of(root: Path, found: Found, agent: "Agent", given: float | None) -> float:
    """Return the temperature given, else the one the agent was evaluated at, else the params' one, else 1."""
    if given is not None:
        return given
    scores = found.folder.parent / "scores.json"
    if scores.is_file():
        try:
            return float(json.loads(scores.read_text())["temperature"])
        except (ValueError, KeyError, TypeError):
            raise ArtifactError(f"{scores} is damaged. Give --temperature, or make it again.") from None
    return float(_setting(root, f"{agent.card.environment}.evaluate.dream.temperature", 1.0))


def _setting(root: Path, key: str, default: Any) -> Any:
    """Return a value of params.yaml, or ``default`` where there is no such key (an agent may come from elsewhere)."""
    if not (root / PARAMS_FILE).is_file():
        return default
    node: Any = load_yaml(root / PARAMS_FILE)
    for part in key.split("."):
        if not isinstance(node, dict) or part not in node:
            return default
        node = node[part]
    return node


def _download(root: Path, uri: str) -> Path:
    """Return the folder of the agent in a registered model."""
    store = tracking_uri(root)
    file = sqlite_file(store)
    if file is not None and not file.exists():  # asking would make an empty one
        raise ArtifactError(f"{file.name} does not exist. `make repro` trains and registers; `wm track sync` rebuilds it.")
    import mlflow
    from mlflow.exceptions import MlflowException

    mlflow.set_tracking_uri(store)
    try:
        local = Path(mlflow.artifacts.download_artifacts(artifact_uri=uri))
    except (MlflowException, OSError) as error:
        reason = _first_line(error)
        raise ArtifactError(f"MLflow has no {uri} ({reason}). `wm track sync` registers what was trained.") from None
    cards = sorted(local.rglob("agent.json"))
    if not cards:
        raise ArtifactError(f"{uri} holds no agent.json: it is not an agent of this project.")
    return cards[0].parent


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
