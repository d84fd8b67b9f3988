"""Every environment keeps the same promises; each game maps actions, ends and scores as the paper's does."""

from collections.abc import Iterator
from contextlib import closing

import numpy as np
import pytest
from games import Player, constant, engines
from PIL import Image

from worldmodels.games.any_gym import GymConfig, GymEnv, make_quietly
from worldmodels.games.base import BatchEnv, check_frames
from worldmodels.games.carracing import CarRacingConfig
from worldmodels.games.doom import DoomConfig
from worldmodels.games.frames import as_picture, resize
from worldmodels.games.make import EnvironmentConfig, action_size, make_env
from worldmodels.errors import EnvironmentFault, ParamsError
from worldmodels.params import validate

LIMIT = 25
STEPS_UNTIL_SEEDS_SHOW = {DoomConfig: 80, CarRacingConfig: 15, GymConfig: 15}  # monsters take 36 to 51 tics to differ
CONFIGS: dict[str, EnvironmentConfig] = {
    "doom": DoomConfig(limit=LIMIT),
    "carracing-envpool": CarRacingConfig(backend="envpool", limit=LIMIT),
    "carracing-gymnasium": CarRacingConfig(backend="gymnasium", limit=LIMIT),
    "gym-box": GymConfig(id="Pendulum-v1", action="box", limit=LIMIT),
    "gym-discrete": GymConfig(id="CartPole-v1", action="discrete", limit=LIMIT),
}


@pytest.fixture(params=CONFIGS)
def config(request: pytest.FixtureRequest) -> EnvironmentConfig:
    return CONFIGS[request.param]


@pytest.fixture
def env(config: EnvironmentConfig) -> Iterator[BatchEnv]:
    with closing(make_env(config, threads=2)) as env:
        yield env


# What every environment promises


def test_frames_rewards_and_ends_have_their_shapes_and_types(env: BatchEnv) -> None:
    frames = env.start([1, 2, 3])
    assert frames.shape == (3, 64, 64, 3)
    assert frames.dtype == np.uint8
    step = env.step(np.zeros((3, env.action_size), np.float32))
    assert step.frames.shape == (3, 64, 64, 3)
    assert step.frames.dtype == np.uint8
    assert step.rewards.shape == (3,)
    assert step.rewards.dtype == np.float32
    assert step.terminal.shape == step.truncated.shape == (3,)
    assert step.terminal.dtype == step.truncated.dtype == bool


def test_the_action_size_is_known_without_a_game(config: EnvironmentConfig, env: BatchEnv) -> None:
    assert action_size(config) == env.action_size


def test_an_episode_depends_on_its_seed_and_actions_alone(config: EnvironmentConfig) -> None:
    last = 2**31 - 1  # seeds have 31 bits
    config = config.model_copy(update={"limit": 1000})
    steps = STEPS_UNTIL_SEEDS_SHOW[type(config)]
    with closing(make_env(config, threads=1)) as env:
        alone = Player(env)
        alone.start(last)
        alone.step(steps)
    with closing(make_env(config, threads=2)) as env:
        crowd = Player(env)
        crowd.start(11, 12, 13)
        crowd.step(3)
        crowd.keep(*[seed for seed in crowd.lanes if seed != 12])  # its engine or object is free now
        crowd.start(14, last)  # last plays in a used one, as the fourth lane
        crowd.step(4)
        crowd.keep(*[seed for seed in crowd.lanes if seed != 11])  # and moves up
        crowd.start(15)
        crowd.step(steps - 4)
    assert len(alone.frames[last]) > 8
    np.testing.assert_array_equal(np.stack(alone.frames[last]), np.stack(crowd.frames[last]))
    assert alone.rewards[last] == crowd.rewards[last]
    assert alone.ends == {k: v for k, v in crowd.ends.items() if k == last}


def test_different_seeds_are_different_episodes_under_the_same_actions(config: EnvironmentConfig) -> None:
    with closing(make_env(config.model_copy(update={"limit": 1000}))) as env:
        env.start([21, 22])
        for _ in range(STEPS_UNTIL_SEEDS_SHOW[type(config)]):
            step = env.step(np.zeros((2, env.action_size), np.float32))
            if (step.terminal | step.truncated).any():
                break
    assert (step.frames[0] != step.frames[1]).any()


def test_a_lane_is_truncated_at_the_limit_unless_the_game_ended_it(env: BatchEnv) -> None:
    player = Player(env)
    player.start(*range(31, 35))
    player.step(7)
    player.start(35)  # its clock starts later
    player.step(LIMIT)
    assert set(player.ends) == {31, 32, 33, 34, 35}
    assert not player.lanes
    for seed, end in player.ends.items():
        assert len(player.rewards[seed]) == LIMIT if end == "truncated" else len(player.rewards[seed]) <= LIMIT
    if not env.preset.startswith("cartpole"):
        assert set(player.ends.values()) == {"truncated"}


def test_a_lane_that_ended_cannot_be_stepped(env: BatchEnv) -> None:
    actions = np.zeros((1, env.action_size), np.float32)
    env.start([1])
    for _ in range(LIMIT):
        step = env.step(actions)
        if step.terminal[0] or step.truncated[0]:
            break
    with pytest.raises(ValueError, match=r"lanes \[0\] are over"):
        env.step(actions)


def test_nan_actions_and_wrong_shapes_never_reach_a_game(env: BatchEnv) -> None:
    env.start([4, 5])
    actions = np.zeros((2, env.action_size), np.float32)
    with pytest.raises(ValueError, match="shape"):
        env.step(actions[:1])
    actions[1] = np.nan
    with pytest.raises(EnvironmentFault, match=r"seeds \[5\]"):
        env.step(actions)


def test_no_lanes_is_a_batch_too(env: BatchEnv) -> None:
    assert env.start([]).shape == (0, 64, 64, 3)
    assert env.step(np.zeros((0, env.action_size), np.float32)).frames.shape == (0, 64, 64, 3)


def test_frames_show_something_that_moves(env: BatchEnv) -> None:
    player = Player(env)
    player.start(41)
    player.step(12)
    check_frames(np.stack(player.frames[41]), "seed 41")
    assert len(np.unique(player.frames[41][0].reshape(-1, 3), axis=0)) > 8


def test_closing_twice_is_harmless_and_leaves_no_process_or_thread(config: EnvironmentConfig) -> None:
    before = set(engines())
    env = make_env(config, threads=2)
    env.start([1, 2, 3])
    started = set(engines()) - before
    assert len(started) == (3 if isinstance(config, DoomConfig) else 0)
    env.close()
    env.close()
    assert not set(engines()) & started


def test_a_score_names_its_rules_and_its_simulator() -> None:
    names = {}
    for name, config in CONFIGS.items():
        with closing(make_env(config, scoring=True)) as env:
            names[name] = (env.preset, env.backend.split("-")[0])
            assert env.preset == config.preset
            assert env.limit == LIMIT
    assert names == {
        "doom": ("takecover-skill4-limit25", "vizdoom"),
        "carracing-envpool": ("carracing-v3-limit25", "gymnasium"),
        "carracing-gymnasium": ("carracing-v3-limit25", "gymnasium"),
        "gym-box": ("pendulum-v1-limit25", "gymnasium"),
        "gym-discrete": ("cartpole-v1-limit25", "gymnasium"),
    }


# Frames


def test_the_resize_is_the_anti_aliased_bilinear_of_pil() -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (5, 100, 160, 3), dtype=np.uint8)
    reference = [np.asarray(Image.fromarray(p).resize((64, 64), Image.Resampling.BILINEAR)) for p in pictures]
    assert np.abs(resize(pictures).astype(int) - np.stack(reference)).max() <= 1


@pytest.mark.parametrize("shape", [(84, 96), (100, 160), (400, 640), (20, 30)])
def test_a_frame_does_not_depend_on_its_batch(shape: tuple[int, int]) -> None:
    pictures = np.random.default_rng(1).integers(0, 256, (7, *shape, 3), dtype=np.uint8)
    alone = [resize(pictures[k : k + 1])[0] for k in range(7)]
    np.testing.assert_array_equal(resize(pictures), np.stack(alone))
    np.testing.assert_array_equal(resize(pictures[::2]), np.stack(alone[::2]))


def test_grey_images_become_rgb() -> None:
    grey = np.arange(6, dtype=np.uint8).reshape(2, 3)
    assert (as_picture(grey) == grey[..., None]).all()
    assert as_picture(grey[..., None]).shape == (2, 3, 3)


def test_black_and_frozen_frames_are_refused() -> None:
    with pytest.raises(EnvironmentFault, match=r"seed 3.*single colour \[0, 0, 0\]"):
        check_frames(np.zeros((3, 64, 64, 3), np.uint8), "seed 3")
    picture = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), dtype=np.uint8)
    with pytest.raises(EnvironmentFault, match="same picture"):
        check_frames(np.repeat(picture, 10, 0), "seed 3")


def test_a_crop_that_misses_the_game_is_refused() -> None:
    corner = GymConfig(id="CartPole-v1", action="discrete", limit=20, crop=(0, 0.9, 0, 0.9))
    with closing(make_env(corner)) as env, pytest.raises(EnvironmentFault, match=r"crop in params\.yaml"):
        check_frames(constant(env, [0.0], 5)[0], "CartPole")


# Any Gymnasium environment


def test_any_environment_is_named_in_yaml_alone() -> None:
    node = {"kind": "gym", "id": "CarRacing-v3", "action": "discrete", "limit": 3, "crop": [0, 0.125, 0, 0]}
    config = validate({**node, "kwargs": {"continuous": False}}, "car.environment", EnvironmentConfig)
    with closing(make_env(config)) as env:
        frame = env.start([9])[0]
        assert env.action_size == 1
        assert env.preset.startswith("carracing-v3-limit3-")
    with closing(make_env(CarRacingConfig(backend="gymnasium"))) as reference:
        np.testing.assert_array_equal(frame, reference.start([9])[0])


def test_frame_skip_holds_the_action_and_sums_the_rewards() -> None:
    once, held = (GymConfig(id="Pendulum-v1", action="box", limit=20, frame_skip=skip) for skip in (1, 2))
    assert held.preset == "pendulum-v1-limit20-skip2"
    with closing(make_env(once)) as one, closing(make_env(held)) as two:
        film_one, total_one = constant(one, [0.3], 8)
        film_two, total_two = constant(two, [0.3], 4)
    np.testing.assert_array_equal(film_one[::2], film_two)
    assert total_one == pytest.approx(total_two, rel=1e-5)


@pytest.mark.parametrize(
    ("action", "once", "held"),
    [
        ([1.0], DoomConfig(limit=400), DoomConfig(limit=100, frame_skip=4)),  # to its death
        ([0.1, 1.0, -1.0], CarRacingConfig(limit=48), CarRacingConfig(limit=12, frame_skip=4)),
        (
            [0.1, 1.0, -1.0],
            CarRacingConfig(backend="gymnasium", limit=48),
            CarRacingConfig(backend="gymnasium", limit=12, frame_skip=4),
        ),
    ],
    ids=["doom", "carracing-envpool", "carracing-gymnasium"],
)
def test_an_action_held_is_the_same_game_seen_less_often(
    action: list[float], once: EnvironmentConfig, held: EnvironmentConfig
) -> None:
    played = []
    for config in (once, held):
        with closing(make_env(config, threads=2)) as env:
            assert (env.limit, env.preset) == (config.limit, once.preset)
            film, total, over, lanes = [env.start([5, 6])[0]], 0.0, False, 2
            while not over:
                step = env.step(np.array([action] * lanes, np.float32))
                film.append(step.frames[0])
                total += float(step.rewards[0])
                over = bool(step.terminal[0] or step.truncated[0])
                env.keep(np.arange(lanes := 1))  # the other lane goes after the first step
            played.append((np.stack(film), total, step.terminal[0]))
    (film, total, terminal), (seldom, same_total, same_terminal) = played
    assert total == pytest.approx(same_total, rel=1e-5)
    assert terminal == same_terminal == isinstance(once, DoomConfig)
    whole = (len(film) - 1) // 4
    assert len(seldom) - 1 == -(-(len(film) - 1) // 4)
    np.testing.assert_array_equal(seldom[: whole + 1], film[::4][: whole + 1])


def test_a_box_is_mapped_linearly_and_a_discrete_space_cut_into_equal_bins() -> None:
    from gymnasium.spaces import Box, Discrete

    from worldmodels.games.any_gym import action_map

    box = GymConfig(id="x", action="box", limit=1)
    scale, size = action_map(Box(np.array([-2, 0], np.float32), np.array([2, 10], np.float32)), box)
    assert size == 2
    for action, controls in (([-1, -1], [-2, 0]), ([0, 0], [0, 5]), ([1, 1], [2, 10])):
        np.testing.assert_allclose(scale(np.array(action)), controls)
    choose, size = action_map(Discrete(4, start=1), GymConfig(id="x", action="discrete", limit=1))
    picks = [choose(np.array([a])) for a in np.linspace(-1, 1, 4001)]
    assert size == 1
    assert picks[0] == 1
    assert picks[-1] == 4
    assert np.abs(np.bincount(picks)[1:] - 1000).max() <= 1


def test_a_limit_of_the_games_own_truncates() -> None:
    env = GymEnv(
        lambda: make_quietly("Pendulum-v1", 4, {"render_mode": "rgb_array"}),
        lambda action: action,
        1,
        limit=100,
        preset="pendulum",
    )
    with closing(env):
        env.start([1])
        ends = [env.step(np.zeros((1, 1), np.float32)).truncated[0] for _ in range(4)]
    assert ends == [False, False, False, True]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"id": "NoSuchGame-v0"}, "NoSuchGame"),
        ({"action": "box"}, "set `action: discrete`"),
        ({"kwargs": {"colour": 1}}, "colour"),
        ({"id": "nosuchmodule:Game-v0"}, "nosuchmodule"),
        ({"crop": [0.5, 0.5, 0, 0]}, "no picture is left"),
        ({"limit": 0}, "greater than or equal to 1"),
    ],
)
def test_what_cannot_be_used_is_refused_with_the_remedy(change: dict[str, object], message: str) -> None:
    node = {"kind": "gym", "id": "CartPole-v1", "action": "discrete", "limit": 5, **change}
    with pytest.raises(ParamsError, match=message):
        make_env(validate(node, "cart.environment", EnvironmentConfig))
