"""Where the whole run stands, as each of its stages says first: how many stages there are, and about how long they take yet."""

import math
import os
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

import psutil
from filelock import FileLock

from worldmodels.storage.files import form, read_json, write_json
from worldmodels.tracking.plan import asked_for, read_plan

TIMES = Path(".tracking/times.json")
"""Stage -> the seconds that were forecast for it, and those that it took when it was last run here."""
Times = Mapping[str, tuple[float, float]]
ENOUGH = 0.05
"""Share of what is left that must have been measured before a time is told: random play says little of how fast M learns."""
DOUBT = 60.0
"""Forecast seconds of a kind of stage that must be measured to count as much as what is known of all kinds."""


class Course:
    """What a stage can say of the ``dvc repro`` that it is part of. It observes: whatever fails, less is said.

    Args:
        root: the folder of the project.
        kept: the checkpoint at which the stage goes on. If there is none, it begins at its beginning.
    """

    def __init__(self, root: Path, kept: Path) -> None:
        self.text = ""
        self._file, self._stage = root / TIMES, os.environ.get("DVC_STAGE", "")
        self._expected, self._before = math.nan, math.nan
        self._begun = self._file.with_name(f"{self._stage}.begun")
        try:
            targets = asked_for()
            if targets is None:
                return
            plan = read_plan(root, self._stage, targets)
            self.text = f"stage {len(plan.covered) - len(plan.left) + 1} of {len(plan.covered)}"
            # Here: they load the code of all phases.
            from worldmodels.forecast import RATES, forecast, read_rates, span
            from worldmodels.params import PARAMS_FILE
            from worldmodels.project import load_project

            rates = next(iter(read_rates(root / RATES).values()))
            expected = forecast(load_project(root / PARAMS_FILE), rates)
            self._expected, self._before = expected[self._stage], self._spent_before(kept)
            if not math.isnan(self._before):
                write_json(self._begun, {"at": _began(), "before": self._before})
            left = seconds_left(expected, plan.left, read_times(self._file))
            if not math.isnan(left):
                self.text += f", about {span(left)} left"
        except Exception:  # whatever others wrote into these files: no stage may fail because of what it says
            return

    def end(self) -> None:
        """Keep how long the stage took: all its runs, as far as their work was kept."""
        if math.isnan(self._expected) or math.isnan(self._before):
            return
        took = self._before + time.time() - _began()
        try:
            with FileLock(self._file.with_suffix(".lock"), timeout=10):  # another game's stage may end at the same time
                write_json(self._file, {**read_times(self._file), self._stage: (round(self._expected, 1), round(took, 1))})
            self._begun.unlink()
        except Exception:
            return

    def _spent_before(self, kept: Path) -> float:
        """Return the seconds of earlier runs of this stage that led to its checkpoint; NaN if they are not known."""
        if not kept.exists():
            return 0.0
        begun = read_json(self._begun, form({"at": float, "before": float})) if self._begun.exists() else {}
        return begun["before"] + max(0.0, kept.stat().st_mtime - begun["at"]) if begun else math.nan


def _began() -> float:
    return psutil.Process().create_time()


def seconds_left(expected: Mapping[str, float], left: Iterable[str], times: Times) -> float:
    """Return about how long stages will take here; NaN if too little was measured here yet, or a stage has no forecast.

    What a kind of stage took, over what was forecast for it, says how long its others will take. As long as little of a kind
    is measured, what all kinds took says more.

    >>> seconds_left({"vision@a": 100.0, "vision@b": 50.0}, ["vision@b"], {"vision@a": (100.0, 200.0)})
    100.0
    """
    kinds = defaultdict[str, list[float]](lambda: [0.0, 0.0])
    for stage, measured in times.items():
        for kind in ("", stage.partition("@")[0]):
            kinds[kind] = [known + more for known, more in zip(kinds[kind], measured, strict=True)]
    left = list(left)
    forecast, took = kinds[""]
    if not forecast > ENOUGH * sum(expected[stage] for stage in left):
        return math.nan
    pace = took / forecast

    def of(stage: str) -> float:
        forecast, took = kinds[stage.partition("@")[0]]
        return expected[stage] * (took + pace * DOUBT) / (forecast + DOUBT)

    return sum(map(of, left))


def read_times(path: Path) -> Times:
    """Return what was measured; nothing if there is no such file."""
    found: Times = read_json(path, dict[str, tuple[float, float]]) if path.exists() else {}
    return found
