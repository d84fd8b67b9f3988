"""The transfer score: C in the real game on test episodes that nothing was trained or selected on, beside its dream."""

import numpy as np
import pandas as pd

from pipeline.playing import play
from pipeline.stage import Stage, run_stage
from worldmodels.agent.agent import load_agent
from worldmodels.report.demonstration import TRAVERSAL_REACH, TRAVERSAL_STEPS, Demonstration, demonstrate
from worldmodels.rollout.evaluation import NUM_ENVS, EvaluationConfig, shards
from worldmodels.agent.play import play_dream, play_real
from worldmodels.rollout.scores import episodes_table, join, summarise
from worldmodels.games.base import GameConfig
from worldmodels.games.make import Game
from worldmodels.report.pictures import filmstrip, reconstruction_grid, write_png
from worldmodels.report.video import side_by_side, write_video
from worldmodels.seeds import episode_seeds
from worldmodels.storage.files import read_json, read_table, write_json, write_table
from worldmodels.storage.layout import require

PICTURES = 12
"""Pictures of a filmstrip."""
FILM_STEPS = 350
"""Longest film."""


def main(stage: Stage) -> None:
    config: EvaluationConfig = stage.params("evaluate", EvaluationConfig)
    game: GameConfig = stage.params("game", Game)
    agent = load_agent(stage.files.agent)
    shared = stage.engine.share(agent)
    tasks = [
        (shared, game, seeds, NUM_ENVS)
        for seeds in shards(episode_seeds("test", config.episodes), NUM_ENVS, stage.engine.workers)
    ]
    checkpoint = stage.checkpoint(*sorted(stage.files.agent.iterdir()))
    real = join(play(stage, play_real, tasks, checkpoint))
    blind = read_table(stage.origin.baseline_returns)
    tables = [episodes_table(real, "real"), blind[blind["world"] == "random"]]
    dream = None
    if config.dreams:
        returns = play_dream(agent, config.temperature, episode_seeds("dream", config.dreams, stream="test"))
        tables.append(episodes_table(returns, "dream"))
        dream = summarise(returns)
    env = game.make(scoring=True)
    scores = {
        "key": stage.key,
        "environment": stage.environment,
        "iteration": int(stage.key.rpartition("-")[2]),
        "preset": stage.value("preset"),
        "rules": env.rules,
        "backend": env.backend,
        "temperature": config.temperature,
        "real": summarise(real),
        "dream": dream,
        "baseline": read_json(stage.origin.baseline),
        "blind": best_blind(pd.read_csv(require(stage.origin.blind))),
        "gap": dream["mean"] - float(real.total.mean()) if dream else None,
    }
    seed = episode_seeds("demonstration", 1)[0]
    seen = demonstrate(agent, env, seed=seed, temperature=config.temperature, limit=game.steps)
    show(stage, seen, game.frames_a_second)
    write_table(stage.files.returns, pd.concat(tables, ignore_index=True))
    write_json(stage.files.scores, scores)
    stage.run.metrics(flat_scores(scores), 0)
    files = stage.files
    stage.run.done(files.scores, images=[files.reconstructions, files.filmstrip, files.traversal, files.temperatures])


def best_blind(table: pd.DataFrame) -> dict | None:
    """Return the best policy that does not look, other than the random one; None where there is none."""
    rows = table[table["policy"] != "random"]
    return None if rows.empty else rows.sort_values("mean").iloc[-1][["policy", "mean", "stderr", "n"]].to_dict()


def flat_scores(scores: dict) -> dict[str, float]:
    """Return the headline figures as metrics."""
    worlds = [world for world in ("real", "dream", "baseline") if scores[world]]
    return {f"{world}/{name}": scores[world][name] for world in worlds for name in ("mean", "std", "stderr", "n")}


def show(stage: Stage, seen: Demonstration, fps: float) -> None:
    """Draw the reconstruction grid, the filmstrips and the traversal; film the episode."""
    views = seen.film.views()
    real = views["real"]
    chosen = np.linspace(0, len(real) - 1, 16).astype(int)
    write_png(stage.files.reconstructions, reconstruction_grid(real[chosen], views["real through V"][chosen]))
    rows = views | {"dream, acting": seen.dreamt}
    every = max(1, len(real) // PICTURES)
    strip = filmstrip({label: frames[: every * PICTURES] for label, frames in rows.items()}, every)
    write_png(stage.files.filmstrip, strip)
    every = max(1, max(map(len, seen.at.values())) // PICTURES)
    dreams = {f"dream, tau {tau:g}": frames[: every * PICTURES] for tau, frames in seen.at.items()}
    write_png(stage.files.temperatures, filmstrip(dreams, every))
    heads = [f"{reach:+.2g}" for reach in np.linspace(-TRAVERSAL_REACH, TRAVERSAL_REACH, TRAVERSAL_STEPS)]
    traversed = {f"z{index}": frames for index, frames in seen.traversal.items()}
    write_png(stage.files.traversal, filmstrip(traversed, heads=heads, corner="std"))
    film = side_by_side({label: frames[:FILM_STEPS] for label, frames in views.items()})
    write_video(stage.files.film, film, fps, scale=1)


if __name__ == "__main__":
    run_stage("evaluate", main)
