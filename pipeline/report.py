"""The page with every iteration's figures, tables and pictures."""

from pathlib import Path

from pipeline.stage import Stage, run_stage
from worldmodels.params import load_yaml
from worldmodels.report.build import build_report
from worldmodels.storage.layout import REPORTS


def main(stage: Stage) -> None:
    params = load_yaml()
    build_report(Path(), list(params["chain"]), params, list(params.get("trials") or {}))
    stage.run.done(REPORTS)


if __name__ == "__main__":
    run_stage("report", main)
