"""Another kind of M than the LSTM: its own class and config are all that it takes to learn, dream, play and be stored."""

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
        return 0 if kind == "z" else WIDTH

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


@pytest.fixture(scope="module")
def memory(rows):
    """Return one that has learned, and the loss before and after."""
    config = MemoryTraining.model_construct(
        model=AverageConfig(reward="event"),
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


def test_it_is_dreamt_and_played_and_stored(agent, tmp_path, monkeypatch):
    monkeypatch.setattr(make, "MemoryConfig", AverageConfig)
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
    assert (actions.shape, state.shape) == ((2, 1), (2, WIDTH))


def test_one_plays_with_its_dream(agent):
    whole = run_episodes(agent.dream_world(temperature=1.0), agent.policy(), [3])
    session = Session(agent, temperature=1.0, seed=3)
    while not session.now.ended and session.now.step < 30:
        session.step()
    assert (session.now.step, session.now.total) == (whole.length[0, 0], pytest.approx(whole.total[0, 0], abs=1e-4))
    again = Session(agent, temperature=1.0)
    again.replay(session.recording())
    assert torch.equal(again.now.z, session.now.z)


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
