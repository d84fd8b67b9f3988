"""Recorded play as the data of a world model that has learned nothing: others go on from it (`after`)."""

import sys
from pathlib import Path

from pipeline.stage import Stage, run_stage
from worldmodels.games.base import GameConfig
from worldmodels.games.make import Game
from worldmodels.games.sight import Sight
from worldmodels.recordings.episodes import Recording
from worldmodels.storage.episodes import EpisodeWriter
from worldmodels.storage.weights import save_tensors


def main(stage: Stage) -> None:
    game: GameConfig = stage.params("game", Game)
    files, folder = stage.model, Path(stage.folder)
    recording = Recording(folder, game)
    found, sight = recording.contents, Sight()
    writer = EpisodeWriter(files.episodes, game.action_size)
    for episode in stage.progress(recording.episodes(), "episode", found.episodes):
        sight.see(episode.frames)
        writer.write(episode, recording.player)
    sight.check(str(folder))
    writer.finish(files.data, choices=game.choices)
    for path in (files.latents, files.vision, files.memory):
        save_tensors(path, {}, {"frames": 0} if path == files.latents else {})
    steps = sum(row["steps"] for row in writer.rows)
    print(f"{stage.key}: {found.episodes} episodes, {steps:,} steps", file=sys.stderr)
    stage.run.done(files.data, metrics=files.data)


if __name__ == "__main__":
    run_stage("recording", main)
