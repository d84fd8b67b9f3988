"""A GPU computes what the CPU computes, to the accuracy of single precision. Nothing here runs without one."""

from functools import partial

import numpy as np
import pytest
import torch

from worldmodels.compute.engine import LocalEngine
from worldmodels.controller.arena import Arena
from worldmodels.controller.model import ControllerConfig, parameter_count
from worldmodels.learning.fit import OptimiserConfig
from worldmodels.learning.initialisation import initialise
from worldmodels.memory.lstm import LSTMConfig
from worldmodels.memory.make import new_memory
from worldmodels.memory.prediction import MemoryLossConfig
from worldmodels.memory.training import MemoryTraining, train_memory
from worldmodels.shapes import Episode
from worldmodels.storage.episodes import EpisodeWriter, FrameReader
from worldmodels.storage.files import write_json
from worldmodels.vision.encode import encode_rows
from worldmodels.vision.model import VisionConfig, VisionLossConfig
from worldmodels.vision.training import VisionTraining, new_vision, train_vision
from worldmodels.worlds.dream import DreamWorld, Replay, Starts
from worldmodels.worlds.pay import paid

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
OPTIMISER = OptimiserConfig(updates=4, batch=8)
DEVICES = ("cpu", "cuda")


def quiet(row):
    """Observe nothing."""


def close(one, other):
    for name, value in one.items():
        torch.testing.assert_close(other[name].cpu(), value.cpu(), rtol=1e-3, atol=1e-4)


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    folder = tmp_path_factory.mktemp("frames")
    write_json(folder / "none.json", {"shards": []})
    writer = EpisodeWriter(folder / "episodes", actions=1)
    random = np.random.default_rng(0)
    for seed in range(3):
        pictures = random.integers(0, 255, (90, 64, 64, 3), np.uint8)
        actions = random.uniform(-1, 1, (89, 1)).astype(np.float32)
        writer.write(Episode(pictures, actions, np.ones(89, np.float32), True, seed), "random")
    writer.finish(folder / "data.json", folder / "none.json")
    return FrameReader(folder / "data.json")


def test_v_and_m_train_and_encode_the_same(reader):
    found = []
    for device in DEVICES:
        loss = VisionLossConfig(kl_tolerance=0.5, pixel_weight=1.0)
        config = VisionTraining(model=VisionConfig(latent=4), loss=loss, optimiser=OPTIMISER)
        vision = new_vision(config.model, 1).to(device)
        train_vision(vision, reader, config, seed=1, updates=range(4), observe=quiet)
        rows = encode_rows(vision, reader, range(len(reader)))
        shape = LSTMConfig(hidden=8, reward="event")
        training = MemoryTraining(
            model=shape,
            loss=MemoryLossConfig(done_weight=1.0, end_weight=1.0, reward_weight=1.0),
            optimiser=OPTIMISER,
            sequence=12,
        )
        memory = new_memory(shape, 4, 1, 1).to(device)
        train_memory(memory, rows, training, seed=1, updates=range(4), observe=quiet)
        found.append((vision.state_dict(), rows, memory.state_dict()))
    for one, other in zip(*found, strict=True):
        close(one, other)


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_a_generation_dreams_the_same(share):
    memory = LSTMConfig(hidden=16).build(4, 1)
    initialise(memory, torch.Generator().manual_seed(0))
    first = torch.zeros(60, dtype=torch.bool)
    first[::30] = True
    rows = {"mean": torch.randn(60, 4), "log_variance": torch.zeros(60, 4), "action": torch.randn(60, 1), "first": first}
    starts = Replay.of(rows, share=share, context=5, newest=60) if share else Starts.of(rows)
    shape = ControllerConfig(features="zch", hidden=0, bias=False)
    candidates = np.random.default_rng(0).normal(size=(6, parameter_count(shape, 36, 1)))
    totals = []
    for device in DEVICES:
        dream = DreamWorld(memory.to(device), starts, "zch", temperature=1.0, limit=20)
        totals.append(Arena(LocalEngine(1), partial(paid, dream, "survival")).play(shape, candidates, range(5), None).total)
    np.testing.assert_allclose(*totals, rtol=1e-2)
