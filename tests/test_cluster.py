"""A real Ray cluster of two nodes on loopback gives what this process gives, also where workers die."""

import os
import signal
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from worldmodels.compute.engine import ClusterConfig, ComputeConfig, LocalEngine, open_engine
from worldmodels.controller.arena import Arena
from worldmodels.controller.model import ControllerConfig, parameter_count
from worldmodels.errors import ParamsError, WorldModelsError
from worldmodels.games.doom import DoomConfig
from worldmodels.learning.initialisation import initialise
from worldmodels.memory.lstm import LSTMConfig
from worldmodels.vision.model import Vision, VisionConfig
from worldmodels.worlds.dream import DreamWorld, Starts
from worldmodels.worlds.real import RealWorld

SHAPE = ControllerConfig(features="zch", hidden=0, bias=False)
SIZES = (4 + 2 * 16, 1)
HERE = ComputeConfig(threads=1, device="cpu")


def patiently(ask):
    """Let a node take as long to appear as a busy machine needs: Ray asks for 30 s, whatever its settings say."""

    def get_node(*told):
        end = time.monotonic() + 300
        while True:
            try:
                return ask(*told)
            except RuntimeError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.2)

    return get_node


@pytest.fixture(scope="module")
def engine():
    cluster_utils = pytest.importorskip("ray.cluster_utils", reason="the extra `ray` is not installed")
    import ray

    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # the workers have no folder of tests
    services = ray._private.services
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(services, "get_node", patiently(services.get_node))
        cluster = cluster_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        cluster.add_node(num_cpus=1)
    yield open_engine(ClusterConfig(engine="ray", address=cluster.address, workers=3), HERE)
    ray.shutdown()
    cluster.shutdown()


def models():
    shape = LSTMConfig(hidden=16)
    vision, memory = Vision(VisionConfig(latent=4)), shape.build(4, 1)
    for index, model in enumerate((vision, memory)):
        initialise(model, torch.Generator().manual_seed(index))
    return vision.eval(), memory.eval()


def open_game(game, vision, memory):
    return RealWorld(game.make(), vision, memory, "zch")


def candidates(count):
    return np.random.default_rng(0).normal(size=(count, parameter_count(SHAPE, *SIZES)))


def same(one, other):
    assert all(np.array_equal(getattr(one, name), getattr(other, name)) for name in ("total", "length", "terminal", "seeds"))


def test_a_generation_of_dreams_is_the_same_on_a_cluster(engine):
    memory = models()[1]
    starts = Starts(torch.zeros(3, 4), torch.zeros(3, 4))
    open_world = partial(DreamWorld, memory, starts, "zch", temperature=1.0, limit=30)
    here = Arena(LocalEngine(1), open_world).play(SHAPE, candidates(7), range(5), None)
    assert len(np.unique(here.length)) > 1
    same(Arena(engine, open_world).play(SHAPE, candidates(7), range(5), None), here)


def test_a_generation_of_real_games_is_the_same_on_a_cluster(engine):
    game = DoomConfig(skill=4, limit=60, resolution="160x120")
    open_world = partial(open_game, game, *models())
    arena = Arena(LocalEngine(1), open_world)
    here = arena.play(SHAPE, candidates(3), range(2), 2)
    arena.close()
    same(Arena(engine, open_world).play(SHAPE, candidates(3), range(2), 2), here)


def node_and_process(_, seconds):
    import ray

    time.sleep(seconds)
    return ray.get_runtime_context().get_node_id(), os.getpid()


def test_both_nodes_work(engine):
    nodes = set()
    for _ in range(10):  # one node may be done with all before the other has started a process
        nodes |= {node for _, (node, _) in engine.run(node_and_process, [(index, 1.0) for index in range(4)])}
        if len(nodes) == 2:
            break
    assert len(nodes) == 2


def dies_once(marker: str, index: int) -> int:
    if index == 1 and not Path(marker).exists():
        Path(marker).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return index * index


def test_a_worker_that_dies_is_replaced_and_the_work_is_done(engine, tmp_path):
    marker = str(tmp_path / "died")
    assert dict(engine.run(dies_once, [(marker, index) for index in range(4)])) == {0: 0, 1: 1, 2: 4, 3: 9}
    assert Path(marker).exists()


def refuses(_):
    raise ParamsError("`doom.x` is wrong.")


def test_an_error_of_a_task_arrives_as_what_it_is(engine):
    with pytest.raises(ParamsError, match=r"doom\.x"):
        list(engine.run(refuses, [(1,)]))


def test_parts_of_a_generation_are_put_together_in_order():
    engine = LocalEngine(1)
    engine.parts = 3
    memory = models()[1]
    open_world = partial(DreamWorld, memory, Starts(torch.zeros(1, 4), torch.zeros(1, 4)), "zch", temperature=1.0, limit=10)
    same(
        Arena(engine, open_world).play(SHAPE, candidates(2), [4, 2], None),
        Arena(LocalEngine(1), open_world).play(SHAPE, candidates(2), [4, 2], None),
    )


def test_without_ray_the_message_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(WorldModelsError, match=r"pip install .*\[ray\]"):
        open_engine(ClusterConfig(engine="ray"), HERE)


def test_a_cluster_that_is_not_there_is_named_within_seconds():
    pytest.importorskip("ray")
    with pytest.raises(WorldModelsError, match=r"127\.0\.0\.1:1.*Connection refused"):
        open_engine(ClusterConfig(engine="ray", address="127.0.0.1:1"), HERE)


def test_a_cluster_beside_a_gpu_is_refused_because_its_workers_dream_on_processors():
    for device in ("auto", "cuda"):
        with pytest.raises(ParamsError, match=r"needs compute\.device: cpu"):
            open_engine(ClusterConfig(engine="ray"), ComputeConfig(threads=1, device=device))
