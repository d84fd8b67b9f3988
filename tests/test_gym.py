"""Dreams and games as Gymnasium environments, and as stable-baselines3 takes them; the package without the repository."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete, MultiDiscrete
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode
from test_cli import make_agent

import worldmodels
import worldmodels.gym
from worldmodels.agent.agent import Agent
from worldmodels.errors import ParamsError
from worldmodels.gym import for_stable_baselines3
from worldmodels.rollout.loop import run_episodes
from worldmodels.seeds import purpose_of

DREAM, REAL = "WorldModels/Dream-v0", "WorldModels/Real-v0"
PENDULUM = {"kind": "gym", "id": "Pendulum-v1", "limit": 6, "reward": "survival"}


@pytest.fixture(scope="module")
def agent(tmp_path_factory) -> Agent:
    folder = tmp_path_factory.mktemp("agent")
    make_agent(folder, PENDULUM)
    return worldmodels.load(str(folder))


def choosing(agent: Agent, choices: tuple[int, ...]) -> Agent:
    """Return the agent with choices of so many options, of which M learned nothing."""
    memory = agent.memory.config.build(agent.memory.latent, sum(choices))
    memory.choices = choices
    return Agent(agent.card, agent.vision, memory, agent.parameters, agent.starts)


@pytest.mark.filterwarnings("ignore:.*Box observation space:UserWarning")
@pytest.mark.parametrize("name", [DREAM, REAL])
@pytest.mark.parametrize("observation", ["features", "pixels"])
def test_gymnasium_finds_nothing_wrong_with_them(agent: Agent, name: str, observation: str) -> None:
    env = gymnasium.make(name, agent=agent, observation=observation, render_mode="rgb_array", limit=5)
    check_env(env.unwrapped)
    env.reset(seed=3)
    assert env.render().shape == (64, 64, 3)
    assert env.render().std() > 0
    env.close()


@pytest.mark.parametrize("name", [DREAM, REAL])
def test_a_seed_is_the_same_episode_alone_in_any_lane_and_in_the_project(agent: Agent, name: str) -> None:
    alone, many = gymnasium.make(name, agent=agent), gymnasium.make_vec(name, num_envs=3, agent=agent)
    assert many.metadata["autoreset_mode"] == AutoresetMode.SAME_STEP
    seen, _ = many.reset(seed=[4, 9, 7])
    one, _ = alone.reset(seed=9)
    np.testing.assert_array_equal(seen[1], one)
    rewards = 0.0
    for _ in range(agent.game.steps):
        action = np.array([0.3], np.float32)
        seen, paid, ended, cut, info = many.step(np.full((3, 1), 0.3, np.float32))
        one, reward, over, off, _ = alone.step(action)
        last = info["final_obs"][1] if (ended | cut)[1] else seen[1]
        np.testing.assert_array_equal(last, one)
        assert (reward, over, off) == (paid[1], ended[1], cut[1])
        rewards += reward
        if over or off:
            break
    with pytest.raises(gymnasium.error.ResetNeeded):
        alone.step(action)

    class Same:
        def start(self, jobs):
            self.lanes = len(jobs)

        def act(self, features):
            return torch.full((len(features), 1), 0.3)

        def keep(self, lanes):
            pass

    world = agent.dream_world(temperature=1.0) if name == DREAM else agent.real_world(agent.game.make(scoring=True))
    assert run_episodes(world, Same(), [9]).total.item() == pytest.approx(rewards)


def test_the_next_episode_begins_in_the_step_in_which_one_ends(agent: Agent) -> None:
    many = gymnasium.make_vec(DREAM, num_envs=4, agent=agent, limit=3)
    many.reset(seed=0)
    for step in range(1, 7):
        seen, _, ended, cut, info = many.step(np.zeros((4, 1), np.float32))
        over = ended | cut
        assert cut.sum() + ended.sum() == over.sum()
        if over.any():
            assert info["_final_obs"].tolist() == over.tolist()
            assert all((info["final_obs"][lane] != seen[lane]).any() for lane in np.flatnonzero(over))
        if step == 3 and not ended.any():
            assert cut.all()


def test_without_a_seed_episodes_differ_and_a_seed_fixes_all_that_follow(agent: Agent) -> None:
    env = gymnasium.make(DREAM, agent=agent)
    first = [env.reset(seed=5)[1]["seed"], *(env.reset()[1]["seed"] for _ in range(3))]
    again = [env.reset(seed=5)[1]["seed"], *(env.reset()[1]["seed"] for _ in range(3))]
    assert first == again
    assert len(set(first)) == 4
    assert {purpose_of(seed) for seed in first[1:]} == {"evolution"}  # no episode that others are judged by


def test_choices_are_discrete_and_mean_the_option_that_is_named(agent: Agent) -> None:
    one, two = (gymnasium.make_vec(DREAM, num_envs=2, agent=choosing(agent, choices)) for choices in ((3,), (3, 2)))
    assert one.single_action_space == Discrete(3)
    assert two.single_action_space == MultiDiscrete([3, 2])
    assert one.unwrapped._of.taken(np.array([2, 0])).tolist() == [[-1, -1, 1], [1, -1, -1]]
    assert two.unwrapped._of.taken(np.array([[0, 1]])).tolist() == [[1, -1, -1, -1, 1]]
    assert gymnasium.make(DREAM, agent=agent).action_space == Box(-1, 1, (1,), np.float32)


def test_a_wrong_observation_and_an_unknown_agent_are_named(agent: Agent) -> None:
    with pytest.raises(ValueError, match="`features` or `pixels`"):
        gymnasium.make(DREAM, agent=agent, observation="sound")
    with pytest.raises(ParamsError, match="there is no agent `nobody`"):
        gymnasium.make(DREAM, agent="nobody")


def test_ppo_of_stable_baselines3_learns_in_a_dream(agent: Agent) -> None:
    library = pytest.importorskip("stable_baselines3")
    lanes = for_stable_baselines3(gymnasium.make_vec(DREAM, num_envs=4, agent=agent, limit=5).unwrapped)
    learner = library.PPO("MlpPolicy", lanes, n_steps=8, batch_size=16, n_epochs=1, seed=1, device="cpu")
    before = learner.policy.action_net.weight.detach().clone()
    learner.learn(64)
    assert learner.num_timesteps == 64
    lanes.seed(3)
    first, next_one = lanes.reset(), lanes.reset()
    assert not np.array_equal(first, next_one)  # a seed is of the next reset alone
    lanes.seed(3)
    assert np.array_equal(first, lanes.reset())
    assert not torch.equal(before, learner.policy.action_net.weight)


def test_an_agent_that_is_loaded_plays_dreams_and_acts(agent: Agent) -> None:
    returns = agent.evaluate(3)
    assert returns.total.shape == (1, 3)
    assert returns.seeds.tolist() == [0, 1, 2]
    dreamt = agent.dream(seed=2, limit=4)
    assert dreamt.frames.shape[1:] == (64, 64, 3)
    assert len(dreamt.frames) == len(dreamt.actions) + 1 <= 5
    actions, memory = agent.act(dreamt.frames, agent.initial_state(len(dreamt.frames)))
    assert actions.shape == (len(dreamt.frames), 1)
    assert memory.shape == agent.initial_state(len(dreamt.frames)).shape


def test_the_wheel_serves_without_the_repository(tmp_path: Path) -> None:
    root, source, place = Path(__file__).parents[1], tmp_path / "source", tmp_path / "installed"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(root / name, source)
    shutil.copytree(root / "src", source / "src", ignore=shutil.ignore_patterns("*.egg-info", "__pycache__"))
    pip = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check"]
    made = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(tmp_path), str(source)]
    subprocess.run(made, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.stat().st_size < 1_000_000  # it holds no weights
    subprocess.run([*pip, "install", "--no-deps", "--target", str(place), str(wheel)], check=True, capture_output=True)
    make_agent(tmp_path / "agent")
    script = (
        "import gymnasium, worldmodels, worldmodels.gym\n"
        f"assert worldmodels.__file__.startswith({str(place)!r})\n"
        "agent = worldmodels.load('agent')\n"
        "print(agent.evaluate(2).total.shape, agent.dream(seed=1, limit=3).frames.shape[1:])\n"
        "print(gymnasium.make('WorldModels/Dream-v0', agent='agent').reset(seed=1)[0].shape)\n"
    )
    told = {"cwd": tmp_path, "env": os.environ | {"PYTHONPATH": str(place)}, "capture_output": True, "text": True}
    done = subprocess.run([sys.executable, "-c", script], check=False, **told)
    assert done.stdout == "(1, 2) (64, 64, 3)\n(20,)\n", done.stderr
