"""Games of Gymnasium from params alone: pictures, wrappers, actions, processes, and what is refused before training."""

import importlib.util
from collections.abc import Sequence
from contextlib import closing
from typing import Any

import gymnasium
import numpy as np
import psutil
import pytest
from games import Player, constant
from gymnasium.spaces import Box, Discrete, MultiBinary, MultiDiscrete, Text

from worldmodels.errors import EnvironmentFault, ParamsError
from worldmodels.games import any_gym
from worldmodels.games.any_gym import GymConfig, open_game
from worldmodels.games.choices import option
from worldmodels.games.frames import resize
from worldmodels.games.gym_actions import action_map
from worldmodels.games.gym_lanes import GymEnv
from worldmodels.games.gym_open import backend_of, drawn, make_quietly
from worldmodels.games.make import Game
from worldmodels.params import validate

DOT = "own_games:Dot-v0"


def game(**told: Any) -> GymConfig:
    config: GymConfig = validate({"kind": "gym", "id": DOT, "limit": 20, **told}, "dot.game", Game)
    return config


def first(config: GymConfig, seed: int = 5) -> np.ndarray:
    with closing(config.make()) as env:
        return env.start([seed])[0]


# The picture


def test_the_picture_is_the_image_that_is_named_in_an_observation_of_several_parts() -> None:
    with closing(open_game(game(), drawing=False)) as own:
        seen, _ = own.reset(seed=5)
    np.testing.assert_array_equal(first(game(image_key="view")), resize(seen["view"][None])[0])
    grey = np.repeat(seen["near"][None, ..., None], 3, -1)
    np.testing.assert_array_equal(first(game(image_key="near")), resize(grey)[0])


def test_without_a_name_it_is_what_the_game_draws() -> None:
    with closing(open_game(game(), drawing=True)) as own:
        own.reset(seed=5)
        picture = own.render()
    np.testing.assert_array_equal(first(game()), resize(np.ascontiguousarray(picture)[None])[0])
    assert (first(game()) != first(game(image_key="view"))).any()


def test_a_game_whose_observation_is_an_image_can_be_drawn_instead() -> None:
    seen, other = (GymConfig(id="CarRacing-v3", limit=5, render=render) for render in (False, True))
    assert (first(seen) != first(other)).any()
    assert seen.rules != other.rules


# Wrappers, arguments, rewards


def test_wrappers_go_around_the_game_from_the_inside_to_the_outside() -> None:
    plain, half = game(image_key="view"), {"id": "own_games:Halved"}
    clip = {"id": "ClipReward", "kwargs": {"min_reward": -0.2, "max_reward": 0.2}}
    totals = {}
    for name, wrappers in (("plain", []), ("half", [half]), ("half, clip", [half, clip]), ("clip, half", [clip, half])):
        with closing(plain.model_copy(update={"wrappers": game(wrappers=wrappers).wrappers}).make()) as env:
            totals[name] = constant(env, [*option(2, 3), *option(0, 3)], 10)[1]
    assert totals == pytest.approx({"plain": 10, "half": 5, "half, clip": 2, "clip, half": 1})


def test_a_wrapper_can_make_the_picture() -> None:
    drawn_by_gymnasium = {"id": "AddRenderObservation", "kwargs": {"render_only": True}}
    config = GymConfig.model_validate(
        {"id": "CartPole-v1", "limit": 9, "kwargs": {"render_mode": "rgb_array"}, "wrappers": [drawn_by_gymnasium]}
    )
    np.testing.assert_array_equal(first(config), first(GymConfig(id="CartPole-v1", limit=9)))


@pytest.mark.parametrize("held", [1, 2])
def test_rewards_are_scaled(held: int) -> None:
    totals = []
    for scale in (1.0, 0.25):
        with closing(game(image_key="view", reward_scale=scale, frame_skip=held).make()) as env:
            totals.append(constant(env, [*option(2, 3), *option(0, 3)], 6)[1])
    assert totals == [6 * held, 1.5 * held]


def test_a_limit_of_the_games_own_is_not_in_the_way() -> None:
    with closing(GymConfig(id="Pendulum-v1", limit=210).make()) as env:  # registered with 200 steps
        env.start([1])
        cut = [env.step(np.zeros((1, 1), np.float32)).truncated[0] for _ in range(210)]
    assert cut == [False] * 209 + [True]


def test_a_limit_that_a_wrapper_sets_truncates() -> None:
    limited = game(image_key="view", wrappers=[{"id": "TimeLimit", "kwargs": {"max_episode_steps": 4}}])
    with closing(limited.make()) as env:
        env.start([1])
        cut = [env.step(np.zeros((1, 6), np.float32)).truncated[0] for _ in range(4)]
    assert cut == [False, False, False, True]


def test_all_that_changes_the_score_changes_the_rules() -> None:
    told: list[dict[str, Any]] = [
        {},
        {"image_key": "view"},
        {"render": True},
        {"reward_scale": 2.0},
        {"wrappers": [{"id": "own_games:Halved"}]},
        {"kwargs": {"actions": "switches"}},
        {"crop": [0, 0.5, 0, 0]},
        {"reward": "survival"},
        {"limit": 30},
    ]
    assert len({game(**each).rules for each in told}) == len(told)
    assert game().rules == "own_games-dot-v0-limit20"
    assert game(frame_skip=4).rules == game().rules


# Actions


def test_a_box_is_mapped_linearly() -> None:
    scale, size, choices = action_map(Box(np.array([-2, 0], np.float32), np.array([2, 10], np.float32)), "x")
    assert (size, choices) == (2, ())
    for action, controls in (([-1, -1], [-2, 0]), ([0, 0], [0, 5]), ([1, 1], [2, 10])):
        np.testing.assert_allclose(scale(np.array(action)), controls)


def test_whole_numbers_of_a_box_have_equal_shares() -> None:
    scale, size, _ = action_map(Box(-1, 1, (1,), np.int64), "x")
    taken = [int(scale(np.array([action]))[0]) for action in np.linspace(-1, 1, 301)]
    assert size == 1
    assert np.bincount(np.array(taken) + 1).tolist() == [100, 100, 101]


def test_of_the_numbers_for_the_options_of_a_choice_the_largest_wins() -> None:
    choose, size, choices = action_map(Discrete(4, start=1), "x")
    assert (size, choices) == (4, (4,))
    assert [choose(np.array(option(number, 4))) for number in range(4)] == [1, 2, 3, 4]
    assert choose(np.array([-0.5, -0.4, -0.6, -0.4])) == 2
    several, size, choices = action_map(MultiDiscrete([2, 3], start=[5, 0]), "x")
    assert (size, choices) == (5, (2, 3))
    assert several(np.array([0, 1, -1, 0.2, 0.1])).tolist() == [6, 1]
    switches, size, choices = action_map(MultiBinary([2, 2]), "x")
    assert (size, choices) == (8, (2, 2, 2, 2))
    assert switches(np.array([1, 0, 0, 1, 1, 0, 0, 1])).tolist() == [[0, 1], [0, 1]]
    with pytest.raises(ParamsError, match="only Box, Discrete"):
        action_map(Text(3), "x")


@pytest.mark.parametrize(("actions", "size"), [("several", 6), ("switches", 4), ("whole", 2)])
def test_what_is_mapped_lies_in_the_games_own_space(actions: str, size: int) -> None:
    config = game(kwargs={"actions": actions}, image_key="view")
    assert config.action_size == size
    with closing(open_game(config, drawing=False)) as own:
        controls = action_map(own.action_space, "x").controls
        random = np.random.default_rng(0)
        assert all(own.action_space.contains(controls(random.uniform(-1.2, 1.2, size))) for _ in range(100))
    with closing(config.make()) as env:
        player = Player(env)
        player.start(1, 2)
        player.step(20)
        assert set(player.ends.values()) == {"truncated"}


# One question, one game


def test_a_game_is_made_once_for_all_questions(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    make = gymnasium.make

    def counted(name: Any, **told: Any) -> Any:
        made.append(name)
        return make(name, **told)

    monkeypatch.setattr(gymnasium, "make", counted)
    monkeypatch.setattr(any_gym, "_known", {})
    config = game(image_key="view")
    for asked in (config, config.at_most(5), config.model_copy(update={"frame_skip": 2, "crop": (0, 0.1, 0, 0)})):
        assert asked.action_size == 6
        assert asked.choices == (3, 3)
        assert asked.game_steps_a_second == 12
        assert asked.random.mean == [0.0] * 6
        asked.make().close()
    assert len(made) == 1
    assert game(kwargs={"actions": "switches"}, image_key="view").action_size == 4
    assert len(made) == 2


# Processes


def played(config: GymConfig, threads: int, groups: Sequence[Sequence[int]]) -> Player:
    """Start groups of seeds, three steps apart, and play them to their ends."""
    with closing(config.make(threads=threads)) as env:
        player = Player(env)
        for group in groups:
            player.start(*group)
            player.step(3)
            player.keep(*player.lanes[1:])
        player.step(config.steps)
    return player


@pytest.mark.parametrize(
    "config", [GymConfig(id="CartPole-v1", limit=30), game(image_key="view", limit=30)], ids=["cart", "dot"]
)
def test_the_number_of_processes_changes_nothing(config: GymConfig) -> None:
    groups = [[3, 1, 4], [15, 9], [2, 6, 5], [35]]
    one = played(config, 1, groups)
    for threads in (2, 3):
        many = played(config, threads, groups)
        assert many.rewards == one.rewards
        assert many.ends == one.ends
        for seed, frames in one.frames.items():
            np.testing.assert_array_equal(np.stack(frames), np.stack(many.frames[seed]))


def test_lanes_are_spread_over_processes_that_end_with_the_games() -> None:
    def players() -> set[int]:
        return {child.pid for child in psutil.Process().children(recursive=True) if "forkserver" in " ".join(child.cmdline())}

    with closing(game(image_key="view").make(threads=3)) as env:
        env.start([1])
        before = players()
        env.start([2, 3, 4])
        assert len(players() - before) == 2  # never more than lanes, never more than threads
        started = players()
    assert len(started - players()) == 3


@pytest.mark.parametrize("threads", [1, 2])
def test_a_game_that_fails_is_named_with_its_seed(threads: int) -> None:
    config = game(image_key="view", kwargs={"wrong": "error"})
    with closing(config.make(threads=threads)) as env:
        env.start([7, 8])
        actions = np.zeros((2, 6), np.float32)
        env.step(actions)
        env.step(actions)
        with pytest.raises(EnvironmentFault, match=r"limit20-\w+, seed 7: RuntimeError: the dot is lost"):
            env.step(actions)


def test_a_process_that_dies_is_told_of() -> None:
    with closing(game(image_key="view", kwargs={"wrong": "process"}).make(threads=2)) as env:
        env.start([7, 8])
        actions = np.zeros((2, 6), np.float32)
        env.step(actions)
        env.step(actions)
        with pytest.raises(EnvironmentFault, match=r"a process that plays it died \(exit code 3\)"):
            env.step(actions)


# What is refused before anything is trained


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"id": "NoSuchGame-v0"}, "`NoSuchGame-v0` cannot be made: .*doesn't exist.*`MODULE:NoSuchGame-v0`"),
        ({"id": "own_games:Spot-v0"}, "`own_games:Spot-v0` cannot be made"),
        ({"id": "nosuchmodule:Game-v0"}, "No module named 'nosuchmodule'.* Install the package"),
        ({"id": "ALE/Pong-v5"}, "`ale_py:ALE/Pong-v5`"),
        ({"kwargs": {"colour": 1}}, "colour"),
        (
            {"wrappers": [{"id": "GreyscaleObservation"}]},
            "in gymnasium.wrappers. Did you mean `GrayscaleObservation`",
        ),
        ({"wrappers": [{"id": "own_games:Halve"}]}, "no wrapper `Halve` in own_games. Did you mean `Halved`"),
        ({"wrappers": [{"id": "nosuchmodule:Halved"}]}, "the wrapper `nosuchmodule:Halved` cannot be imported"),
        ({"wrappers": [{"id": "os:system"}]}, "no wrapper `system` in os"),
        ({"wrappers": [{"id": "ClipReward", "kwargs": {"colour": 1}}]}, "number 1: `ClipReward` cannot be put around.*colour"),
        ({"wrappers": [{"id": "NormalizeReward"}]}, "`NormalizeReward` remembers earlier episodes"),
        ({"image_key": "sound"}, "no image 'sound'. It has images: near, view"),
        ({"image_key": "place"}, "no image 'place'. It has images: near, view"),
        ({"id": "CartPole-v1", "image_key": "view"}, r"no image 'view'. It has no image \(Box"),
        ({"image_key": "view", "render": True}, "two pictures"),
        ({"kwargs": {"modes": []}}, "shows no picture.*render modes: none.*`image_key: near`"),
        ({"kwargs": {"actions": "unbounded"}}, "has no bounds"),
        ({"kwargs": {"actions": "words"}}, "only Box, Discrete, MultiDiscrete and MultiBinary can be mapped"),
        ({"kwargs": {"actions": "pair"}}, "only Box, Discrete, MultiDiscrete and MultiBinary can be mapped"),
        ({"frame_skip": 10**18}, "less than or equal to 1000"),
        ({"crop": [0.5, 0.5, 0, 0]}, "no picture is left"),
        ({"limit": 0}, "greater than or equal to 1"),
        ({"reward_scale": 0.0}, "greater than 0"),
    ],
)
def test_what_cannot_be_used_is_refused_with_the_remedy(
    told: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in gymnasium.registry if name.startswith("ALE/")]:  # another test may have loaded it
        monkeypatch.delitem(gymnasium.registry, name)
    with pytest.raises(ParamsError, match=message) as refused:
        game(**told).action_size  # noqa: B018  what `wm check` asks first
    assert len(str(refused.value).splitlines()) <= 4


def test_a_game_that_draws_nothing_is_told_of() -> None:
    config = game(kwargs={"modes": ["rgb_array"]})
    env = GymEnv(config, lambda: open_game(config, drawing=False), lambda action: action, 6, crop=config.crop, look=drawn)
    with closing(env), pytest.raises(EnvironmentFault, match=r"seed 7: EnvironmentFault: render\(\) gives no picture but None"):
        env.start([7])


# Games of other packages


INSTALLED = {
    "minigrid": {
        "id": "minigrid:MiniGrid-Dynamic-Obstacles-5x5-v0",
        "wrappers": [{"id": "minigrid.wrappers:RGBImgPartialObsWrapper", "kwargs": {"tile_size": 8}}],
        "image_key": "image",
    },
    "ale_py": {"id": "ale_py:ALE/Pong-v5"},
    "highway_env": {"id": "highway_env:highway-fast-v0"},
}


@pytest.mark.parametrize("package", INSTALLED)
def test_a_game_of_another_package_is_played_the_same_on_any_number_of_processes(package: str) -> None:
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    config = game(**INSTALLED[package], limit=12)
    one, two = (played(config, threads, [[3, 1], [4]]) for threads in (1, 2))
    assert one.rewards == two.rewards
    assert one.ends == two.ends
    for seed, frames in one.frames.items():
        np.testing.assert_array_equal(np.stack(frames), np.stack(two.frames[seed]))
    with closing(config.make()) as env:
        assert len(env.backend.split("+")) == 2  # the package and its version


def test_a_game_of_a_plugin_names_the_package_it_is_from() -> None:
    class Spec:
        entry_point = "PIL.games:Game"

    from importlib.metadata import version

    assert backend_of(Spec()) == f"gymnasium-{version('gymnasium')}+pillow-{version('pillow')}"
    with closing(make_quietly("Pendulum-v1", 4, {})) as own:
        assert backend_of(own.spec) == f"gymnasium-{version('gymnasium')}"
