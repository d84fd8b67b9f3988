"""``wm check --frames``: what an agent would see of each game, before anything is trained."""

from contextlib import closing
from pathlib import Path

from worldmodels.params import PARAMS_FILE

COLUMNS = 8
"""Frames of a game that are shown."""
SEED = 0
"""Of the random play."""


def write_frames(root: Path, path: Path) -> str:
    """Play each game of the params file at random, write a picture with a row of frames for each, and say so.

    Raises:
        ParamsError: params are wrong.
        EnvironmentFault: a game fails, or its frames show nothing.
    """
    from worldmodels.games.sight import Sight
    from worldmodels.project import load_project
    from worldmodels.report.pictures import filmstrip, write_png
    from worldmodels.rollout.bare import BareWorld
    from worldmodels.rollout.loop import EpisodeRecorder, run_episodes
    from worldmodels.rollout.policies import RandomPolicy
    from worldmodels.shapes import Episode

    rows = {}
    for name, section in load_project(root / PARAMS_FILE).sections.items():
        episodes: list[Episode] = []
        with closing(BareWorld(section.game.make(scoring=True))) as world:
            run_episodes(world, RandomPolicy(section.game.random), [SEED], recorder=EpisodeRecorder(episodes.append))
        frames = episodes[0].frames
        sight = Sight()
        sight.see(frames)
        sight.check(name)
        rows[name] = frames[:: max(1, len(frames) // COLUMNS)][:COLUMNS]
    heads = ["the first", *[""] * (COLUMNS - 2), "one of the last"]
    write_png(path, filmstrip(rows, heads=heads, corner="frames", note="an episode of random play, as V sees it"))
    return f"{path} shows random play of {' and '.join(rows)}."
