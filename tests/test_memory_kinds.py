"""Other kinds of M than the LSTM: a class and a config are all that it takes to learn, dream, play and be stored."""

from typing import Literal

import numpy as np
import pytest
import torch
from fakes import FakeWorlds, context
from test_worlds import MovingPicture
from torch import nn

from worldmodels.agent.agent import Agent, load_agent, save_agent
from worldmodels.controller.basis import played_features
from worldmodels.controller.model import ControllerConfig, first_parameters
from worldmodels.controller.phases.value_gradient import ValueGradientConfig
from worldmodels.learning.fit import OptimiserConfig
from worldmodels.learning.initialisation import initialise
from worldmodels.memory import make
from worldmodels.memory.base import Memory, MemoryShape
from worldmodels.memory.features import feature_size
from worldmodels.memory.make import new_memory
from worldmodels.memory.training import MemoryTraining, train_memory
from worldmodels.memory.transformer import TransformerConfig
from worldmodels.play.export import write_graphs
from worldmodels.play.session import Session
from worldmodels.rollout.loop import run_episodes
from worldmodels.storage.agents import AgentCard
from worldmodels.vision.model import Vision, VisionConfig
from worldmodels.worlds.dream import DreamWorld, Starts
from worldmodels.worlds.pay import paid

WIDTH = 8
FEATURES = "zch"


class AverageConfig(MemoryShape):
    kind: Literal["average"] = "average"

    def build(self, latent, action):
        return Average(self, latent, action)


class Average(Memory):
    """Remembers a running average of what it reads: the state is the output."""

    parts = (WIDTH,)

    def __init__(self, config, latent, action):
        super().__init__(config, latent, action, WIDTH)
        self.read = nn.Linear(latent + action, WIDTH)

    def outputs(self, state):
        return state

    def features(self, kind, state):
        return state

    def feature_size(self, kind):
        return WIDTH

    def observe(self, z, action, restart, state):
        outputs = []
        for seen, begins in zip(self.read(torch.cat([z, action], -1)).unbind(1), restart.unbind(1), strict=True):
            state = 0.8 * state * (~begins)[:, None] + torch.tanh(seen)
            outputs.append(state)
        return torch.stack(outputs, 1), state


@pytest.fixture(scope="module")
def rows():
    time = torch.arange(800)
    return {
        "mean": 3 * torch.sin(time[:, None] * torch.tensor([0.1, 0.2, 0.3, 0.4])),
        "log_variance": torch.full((800, 4), -6.0),
        "action": torch.sin(time * 0.7)[:, None],
        "reward": (time % 5 == 0).float(),
        "terminal": time % 100 == 98,
        "first": time % 100 == 0,
    }


KINDS = (AverageConfig(reward="event"), TransformerConfig(hidden=WIDTH, heads=2, window=6, clock=50, reward="levels"))


@pytest.fixture(scope="module", params=KINDS, ids=lambda config: config.kind)
def memory(rows, request):
    """Return one that has learned."""
    config = MemoryTraining.model_construct(
        model=request.param,
        loss=MemoryTraining.model_fields["loss"].default,
        optimiser=OptimiserConfig(updates=60, batch=16, learning_rate=0.02, final_learning_rate=0.02),
        sequence=16,
    )
    model = new_memory(config.model, 4, 1, 0)
    curve = train_memory(model, rows, config, seed=0, updates=range(60), observe=lambda *_: None)
    losses = [row["loss"] for row in curve if row["split"] == "validation"]
    assert losses[-1] < losses[0] - 1
    return model


@pytest.fixture(scope="module")
def agent(rows, memory):
    vision = Vision(VisionConfig(latent=4))
    initialise(vision, torch.Generator().manual_seed(0))
    shape = ControllerConfig(features=FEATURES, hidden=0, bias=True)
    parameters = torch.from_numpy(first_parameters(shape, feature_size(FEATURES, 4, memory), 1, 0)).float() + 0.1
    game = {"kind": "vizdoom", "limit": 120, "frame_skip": 4}
    card = AgentCard(kind="world-model", environment="doom", game=game, controller=shape.model_dump())
    return Agent(card, vision.eval(), memory, parameters, Starts.of(rows))


def test_steps_one_by_one_give_what_a_sequence_gives(memory):
    random = torch.Generator().manual_seed(1)
    z, action = torch.randn(3, 20, 4, generator=random), torch.randn(3, 20, 1, generator=random)
    restart = torch.rand(3, 20, generator=random) < 0.15
    start = memory.observe(z, action, restart, memory.initial_state(3))[1]  # in the middle of an episode
    whole, last = memory.observe(z, action, restart, start)
    state = start
    for t in range(20):
        output, state = memory.observe(z[:, t : t + 1], action[:, t : t + 1], restart[:, t : t + 1], state)
        torch.testing.assert_close(output[:, 0], whole[:, t], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(memory.outputs(state), output[:, 0])
    torch.testing.assert_close(state, last, rtol=1e-4, atol=1e-5)
    again, _ = memory.observe(z, action, torch.zeros_like(restart).index_fill(1, torch.tensor(0), True), start)
    fresh, _ = memory.observe(z, action, torch.zeros_like(restart), memory.initial_state(3))
    torch.testing.assert_close(again, fresh, rtol=1e-4, atol=1e-5)  # of what came before an episode, nothing is left
    assert (fresh - whole).abs().max() > 0.01 or restart[:, 0].all()


def test_a_transformer_forgets_what_lies_before_the_windows_of_its_layers():
    shape = TransformerConfig(hidden=WIDTH, heads=2, layers=2, window=3)
    memory = new_memory(shape, 4, 1, 0)
    z, action, restart = torch.randn(1, 12, 4), torch.randn(1, 12, 1), torch.zeros(1, 12, dtype=torch.bool)
    outputs, _ = memory.observe(z, action, restart, memory.initial_state(1))
    z[:, 2] += 1.0
    moved, _ = memory.observe(z, action, restart, memory.initial_state(1))
    differs = (moved - outputs).abs().amax(-1)[0] > 1e-6
    assert differs.tolist() == [2 <= step <= 2 + shape.layers * shape.window for step in range(12)]


def test_a_transformer_whose_heads_do_not_share_its_width_is_refused():
    with pytest.raises(ValueError, match="hidden must be a multiple of 2 \\* heads = 6, and is 8"):
        TransformerConfig(hidden=8, heads=3)


def test_it_is_dreamt_and_played_and_stored(agent, tmp_path, monkeypatch):
    monkeypatch.setattr(make, "MemoryConfig", AverageConfig | TransformerConfig)
    save_agent(tmp_path, agent)
    again = load_agent(tmp_path)
    worlds = [
        lambda who: who.dream_world(temperature=1.0),
        lambda who: paid(who.dream_world(temperature=1.0), "survival"),
        lambda who: paid(who.real_world(MovingPicture()), "hazard", hazard_cost=10.0),
    ]
    for open_world in worlds:
        one, other = (run_episodes(open_world(who), who.policy(), range(9)).total for who in (agent, again))
        np.testing.assert_array_equal(one, other)
        assert len(np.unique(one)) > 3
    frames = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)
    actions, state = agent.act(frames, agent.initial_state(2))
    assert (actions.shape, state.shape) == ((2, 1), (2, agent.memory.state_size))


def test_one_plays_with_its_dream(agent):
    whole = run_episodes(agent.dream_world(temperature=1.0), agent.policy(), [3])
    session = Session(agent, temperature=1.0, seed=3)
    while not session.now.ended and session.now.step < 30:
        session.step()
    assert (session.now.step, session.now.total) == (whole.length[0, 0], pytest.approx(whole.total[0, 0], abs=1e-4))
    again = Session(agent, temperature=1.0)
    again.replay(session.recording())
    assert torch.equal(again.now.z, session.now.z)


def test_its_dream_can_be_exported(agent, tmp_path):
    onnx = pytest.importorskip("onnx", reason="the extra `web` is not installed")
    write_graphs(tmp_path, agent)
    graph = onnx.load(tmp_path / "memory.onnx").graph
    shapes = {each.name: each.type.tensor_type.shape.dim for each in (*graph.input, *graph.output)}
    assert [shapes[name][1].dim_value for name in ("state", "state_next")] == [agent.memory.state_size] * 2


def test_c_follows_its_gradient(agent, rows):
    model, memory, start = agent.config, agent.memory, agent.parameters.numpy()
    worlds = FakeWorlds(
        lambda _: DreamWorld(memory, agent.starts, FEATURES, temperature=1.0, limit=15),
        memory=memory,
        seen=played_features(FEATURES, memory, rows),
    )
    phase = ValueGradientConfig(
        updates=2, critic_updates=0, num_envs=4, num_steps=20, gradient_steps=2, learning_rate=0.01, drought_cost=0.0
    )
    learner = phase.open(context(worlds, model), start)
    moved = learner.generation(0).parameters - start
    assert np.isfinite(moved).all()
    assert np.abs(moved[4 : 4 + WIDTH]).max() > 1e-4  # the weights of what it remembers
