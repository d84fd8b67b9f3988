"""The benchmark of kinds of M: what is learned, and on what it is judged."""

import sys
from pathlib import Path

import pytest
import torch

from worldmodels.learning.fit import OptimiserConfig
from worldmodels.memory.lstm import LSTMConfig
from worldmodels.memory.training import MemoryTraining

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import memories as bench


def rows(frames: int, length: int, level: float) -> bench.Rows:
    """Return episodes of so many steps in which every number of z is this."""
    noise = torch.Generator().manual_seed(0)
    return {
        "mean": level + 0.1 * torch.randn(frames, 3, generator=noise),
        "log_variance": torch.full((frames, 3), -5.0),
        "action": torch.zeros(frames, 1),
        "reward": torch.ones(frames),
        "terminal": torch.arange(frames) % length == length - 1,
        "first": torch.arange(frames) % length == 0,
    }


def test_rows_are_split_where_an_episode_begins() -> None:
    before, after = bench.split(rows(100, 30, 0.0), 0.5)
    assert (len(before["first"]), len(after["first"])) == (60, 40)
    assert bool(after["first"][0])


def test_an_m_forgets_what_it_goes_on_without() -> None:
    """It learns that z is -1, then that it is 1: without the old episodes it does not expect -1 any more."""
    optimiser = OptimiserConfig(updates=1, batch=4, learning_rate=0.01, warm_learning_rate=0.01)
    config = MemoryTraining(model=LSTMConfig(hidden=16), optimiser=optimiser, sequence=8)

    class Counted(bench.Lesson):
        def updates_in(self, *_: object) -> int:
            return 60

    torch.manual_seed(0)
    memory = config.model.build(3, 1)
    memory.draw_weights(torch.Generator().manual_seed(0))
    table = list(bench.compared(memory, Counted(config, 0), rows(600, 20, -1.0), rows(600, 20, 1.0), 1.0, seconds=0.0))
    assert [(row["learned"], row["judged"], row["updates"]) for row in table] == [
        (learned, judged, count)
        for learned, count in (("old", 60), ("old, then new", 90), ("old, then all", 90))
        for judged in ("old", "new")
    ]
    old, _, forgotten, _, kept, _ = (float(str(row["latent"])) for row in table)
    assert old < kept < forgotten
    assert bench.Lesson(config, 0).updates_in(memory, rows(600, 20, -1.0), 0.1) >= 1


def test_without_a_project_it_asks_for_one(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["memories.py"])
    bench.main()
    assert "Which project" in capsys.readouterr().out
