"""The page with the figures, tables and pictures of all iterations and agents."""

from pathlib import Path

from pipeline.stage import Stage, run_stage
from worldmodels.params import load_yaml
from worldmodels.report.build import build_report
from worldmodels.storage.layout import REPORTS


def main(stage: Stage) -> None:
    build_report(Path(), load_yaml())
    stage.run.done(REPORTS)


if __name__ == "__main__":
    run_stage("report", main)
