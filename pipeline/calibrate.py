"""Play blind policies in M's dream, and compare with the game: can the dream be exploited?"""

import sys

from pipeline.stage import Stage, run_stage
from worldmodels.games.base import GameConfig
from worldmodels.games.make import Game
from worldmodels.memory.make import memory_from_description
from worldmodels.rollout.scores import read_blind
from worldmodels.storage.files import write_curve
from worldmodels.storage.weights import load_model, load_tensors
from worldmodels.worlds.calibration import COLUMNS, CalibrationConfig, calibrate
from worldmodels.worlds.dream import DreamWorld, Starts


def main(stage: Stage) -> None:
    config: CalibrationConfig = stage.params("calibrate", CalibrationConfig)
    game: GameConfig = stage.params("game", Game)
    memory = load_model(stage.model.memory, memory_from_description).to(stage.device, stage.products)
    starts = Starts.of(load_tensors(stage.model.latents)[0])
    world = DreamWorld(memory, starts, "z", temperature=config.temperature, limit=game.steps, worth=game.worth)
    _, real = read_blind(stage.random.returns, game.policies)
    unpaid = game.pay == "events" and memory.config.reward == "none"  # such a dream has no rewards to compare
    known = {} if unpaid else game.policies
    policies = stage.progress(known.items(), "policy", len(known))
    table = [calibrate(world, name, policy, real[name], config) for name, policy in policies]
    for row in table:
        if row["kind"]:
            print(
                f"warning: in the dream of {stage.key}, `{row['policy']}` gets {row['dream']:.0f}, in the game "
                f"{row['real']:.0f}: C will exploit that. More data of such play, or a longer training of M, may help.",
                file=sys.stderr,
            )
    write_curve(stage.model.calibration, table, COLUMNS)
    stage.run.done(stage.model.calibration, metrics=stage.model.calibration)


if __name__ == "__main__":
    run_stage("calibrate", main)
