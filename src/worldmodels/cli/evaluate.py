"""``wm evaluate`` and ``wm dream``: an agent put to the test, and filmed."""

from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worldmodels.cli.agents import Found

if TYPE_CHECKING:
    import numpy as np

    from worldmodels.agent.agent import Agent
    from worldmodels.shapes import Returns

STRIP = 12  # pictures in a filmstrip


def evaluate(found: Found, world: str, episodes: int, start: int) -> dict[str, Any]:
    """Play test episodes ``start`` to ``start + episodes - 1`` in the game, ``real``, or in the agent's ``dream``.

    Returns:
        As JSON values: agent, environment, world, rules, backend, temperature (None in the game), first (number of the first
        episode), summary (mean, std, stderr, n, min, max, mean_length, seeds), coverage, if the game has a map, and the returns
        in the order of the seeds.
    """
    from worldmodels.agent.play import play_dream
    from worldmodels.rollout.coverage import coverage_of
    from worldmodels.rollout.scores import summarise
    from worldmodels.seeds import episode_seeds

    agent, dreamt = found.agent, world == "dream"
    if dreamt:
        seeds = episode_seeds("dream", episodes, stream="test", start=start)  # as in the evaluate stage
        backend, returns = "dream", play_dream(agent, found.temperature, seeds)
    else:
        with closing(agent.game.make(scoring=True)) as env:
            backend = env.backend
        returns = _play_game(agent, episode_seeds("test", episodes, start=start))
    return {
        "agent": found.name,
        "environment": agent.card.environment,
        "world": world,
        "rules": agent.game.rules,
        "backend": backend,
        "temperature": found.temperature if dreamt else None,
        "first": start,
        "summary": summarise(returns),
        **coverage_of(returns, agent.game.map),
        "returns": [float(total) for total in returns.total[0]],
    }


def evaluation_text(result: Mapping[str, Any]) -> str:
    """Return what ``evaluate`` found as lines for a person."""
    from worldmodels.report.table import with_error

    own, tau = result["summary"], result["temperature"]
    error = own["stderr"] if own["n"] > 1 else float("nan")
    lines = [
        f"{result['agent']} in the {result['world']} {result['environment']}"
        + ("" if tau is None else f", temperature {tau:g}"),
        f"return   {with_error(own['mean'], error)} (mean ± standard error of {own['n']} episodes)",
        f"spread   std {own['std']:.0f}, {own['min']:.0f} to {own['max']:.0f}",
        f"lowest   {_lowest(result)}",
        f"length   {own['mean_length']:.0f} steps on average",
        f"rules    {result['rules']}",
        f"backend  {result['backend']}",
    ]
    if seen := result.get("coverage"):
        lines.append(f"success  {seen['success']:.0%} of the episodes; {seen['rooms']:.0%} of the rooms in the mean episode")
    return "\n".join(lines)


def _lowest(result: Mapping[str, Any]) -> str:
    """Return the lowest three returns, each with the number of its episode."""
    returns, first = result["returns"], result["first"]
    order = sorted(range(len(returns)), key=returns.__getitem__)[:3]
    return ", ".join(f"{returns[index]:.0f} (episode {first + index})" for index in order)


def film_test(found: Found, world: str, start: int, path: Path) -> None:
    """Play the test episode of that number again, which gives the same, and film it."""
    from worldmodels.report.demonstration import film_episode
    from worldmodels.seeds import episode_seeds

    agent = found.agent
    if world == "dream":
        (seed,) = episode_seeds("dream", 1, stream="test", start=start)
        views = {"dream": agent.dream(seed, temperature=found.temperature).frames}
    else:
        (seed,) = episode_seeds("test", 1, start=start)
        with closing(agent.game.make(scoring=True)) as env:
            views, _ = film_episode(agent, agent.real_world(env), seed=seed, temperature=found.temperature)
    _write_video(path, views, agent)


def draw_dream(found: Found, *, steps: int | None, start: int, out: Path) -> str:
    """Let an agent act in its own dream, draw it to ``out`` (.png, .mp4 or .gif), and say how it went."""
    from worldmodels.report.pictures import filmstrip, write_png
    from worldmodels.seeds import episode_seeds

    name, agent, tau = found
    (seed,) = episode_seeds("demonstration", 1, start=start)
    episode = agent.dream(seed, temperature=tau, limit=steps)
    views = {"dream": episode.frames}
    if out.suffix.lower() == ".png":
        note = f"{name}, temperature {tau:g}, dream {start}"
        write_png(out, filmstrip(views, every=max(1, -(-len(episode.frames) // STRIP)), note=note))
    else:
        _write_video(out, views, agent)
    end = "until the dream ended" if episode.terminal else "up to the limit of steps"
    played = f"{len(episode.actions)} steps at temperature {tau:g}, {end}"
    return f"{out}: {name} dreamt {played}; return {episode.rewards.sum():.0f}."


def _play_game(agent: "Agent", seeds: Sequence[int]) -> "Returns":
    """Play on all cores, with a progress bar if a person is looking."""
    from tqdm import tqdm

    from worldmodels.agent.play import play_real
    from worldmodels.compute.cores import cores
    from worldmodels.compute.local import run_tasks
    from worldmodels.rollout.evaluation import NUM_ENVS, shards
    from worldmodels.rollout.scores import join

    workers = cores()
    size = max(1, min(NUM_ENVS, -(-len(seeds) // workers)))
    tasks = [(agent, agent.game, part, size) for part in shards(seeds, size, workers)]
    with tqdm(total=len(seeds), desc="real", unit="episode", leave=False, disable=None) as bar:
        done = dict(run_tasks(play_real, tasks, workers, lambda _task, _steps, ended: bar.update(ended)))
    return join([done[index] for index in range(len(tasks))])


def _write_video(path: Path, views: "dict[str, np.ndarray]", agent: "Agent") -> None:
    """Write a film, or, if that fails, nothing."""
    from worldmodels.report.video import side_by_side, write_video

    partial = path.with_name(f"{path.stem}.partial{path.suffix}")
    try:
        write_video(partial, side_by_side(views), fps=agent.game.frames_a_second, scale=1)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
