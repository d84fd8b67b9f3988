"""Blind policies in M's dream, against the same in the game: says where the dream can be exploited."""

import sys
from typing import Any

import pandas as pd

from pipeline.stage import Stage, run_stage
from worldmodels.games.make import EnvironmentConfig
from worldmodels.memory.make import memory_from_description
from worldmodels.report.figures import calibration_bars
from worldmodels.report.pictures import write_png
from worldmodels.rollout.evaluation import CalibrationConfig, RealTestConfig
from worldmodels.storage.files import write_curve
from worldmodels.storage.layout import require
from worldmodels.storage.weights import load_model, load_tensors
from worldmodels.worlds.calibration import calibrate
from worldmodels.worlds.dream import DreamWorld, Starts


def main(stage: Stage) -> None:
    config: CalibrationConfig = stage.params("calibrate", CalibrationConfig)
    game: EnvironmentConfig = stage.params("environment", EnvironmentConfig)
    test: RealTestConfig = stage.params("evaluate.real", RealTestConfig)
    memory = load_model(stage.files.memory, memory_from_description).to(stage.device, stage.products)
    rows, _ = load_tensors(stage.files.latents)
    starts = Starts.of(rows)
    how: dict[str, Any] = {"temperature": config.temperature, "limit": config.limit, "worth": game.frame_skip}
    world = DreamWorld(memory, starts, "z", **how)
    real: Any = pd.read_csv(require(stage.origin.blind)).set_index("policy").to_dict("index")
    policies = stage.progress(test.policies().items(), "policy", 1 + len(test.blind))
    table = [calibrate(world, name, policy, real[name], config) for name, policy in policies]
    for row in table:
        if row["kind"]:
            print(
                f"warning: in the dream of {stage.key}, `{row['policy']}` gets {row['dream']:.0f}, "
                f"in the game {row['real']:.0f}: "
                "C will exploit that. More data of such play, or a longer training of M, may help.",
                file=sys.stderr,
            )
    stage.run.metrics({f"ratio/{row['policy']}": float(row["ratio"]) for row in table}, 0)
    write_curve(stage.files.calibration, table)
    write_png(stage.files.calibration_figure, calibration_bars(pd.DataFrame(table)))
    stage.run.done(stage.files.calibration, images=[stage.files.calibration_figure])


if __name__ == "__main__":
    run_stage("calibrate", main)
