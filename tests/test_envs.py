"""Every environment keeps the same promises; each game maps actions, ends and scores as the paper's does."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict

import numpy as np
import pytest
import torch
from games import Player, constant, engines
from PIL import Image

from worldmodels.errors import EnvironmentFault, ParamsError
from worldmodels.games.any_gym import GymConfig, open_game
from worldmodels.games.base import BatchEnv, GameConfig
from worldmodels.games.carracing import CarRacingConfig
from worldmodels.games.choices import chosen
from worldmodels.games.doom import DoomConfig
from worldmodels.games.frames import resize
from worldmodels.games.gym_lanes import GymEnv
from worldmodels.games.gym_open import drawn, make_quietly
from worldmodels.games.make import Game
from worldmodels.games.sight import Sight
from worldmodels.params import validate
from worldmodels.rollout.bare import BareWorld
from worldmodels.rollout.loop import run_episodes
from worldmodels.rollout.policies import blind_policy
from worldmodels.shapes import Job

LIMIT = 25
STEPS_UNTIL_SEEDS_SHOW = {DoomConfig: 80}  # monsters take 36 to 51 tics to differ; of other games 15 are enough
CONFIGS: dict[str, GameConfig] = {
    "doom": DoomConfig(limit=LIMIT),
    "carracing-envpool": CarRacingConfig(backend="envpool", limit=LIMIT),
    "carracing-gymnasium": CarRacingConfig(backend="gymnasium", limit=LIMIT),
    "gym-box": GymConfig(id="Pendulum-v1", limit=LIMIT),
    "gym-discrete": GymConfig(id="CartPole-v1", limit=LIMIT),
    "gym-lander": GymConfig(id="LunarLander-v3", limit=LIMIT),
    "gym-parts": GymConfig(id="own_games:Dot-v0", image_key="view", limit=LIMIT),
    "doom-choice": DoomConfig(scenario="my_way_home", buttons=["MOVE_FORWARD", "TURN_LEFT", "TURN_RIGHT"], limit=LIMIT),
}


@pytest.fixture(params=CONFIGS)
def config(request: pytest.FixtureRequest) -> GameConfig:
    return CONFIGS[request.param]


@pytest.fixture
def env(config: GameConfig) -> Iterator[BatchEnv]:
    with closing(config.make(threads=2)) as env:
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


def test_the_action_size_is_known_without_a_game(config: GameConfig, env: BatchEnv) -> None:
    assert config.action_size == env.action_size


def test_an_episode_depends_on_its_seed_and_actions_alone(config: GameConfig) -> None:
    last = 2**31 - 1  # seeds have 31 bits
    config = config.model_copy(update={"limit": 1000})
    steps = STEPS_UNTIL_SEEDS_SHOW.get(type(config), 15)
    with closing(config.make(threads=1)) as env:
        alone = Player(env)
        alone.start(last)
        alone.step(steps)
    with closing(config.make(threads=2)) as env:
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


def test_different_seeds_are_different_episodes_under_the_same_actions(config: GameConfig) -> None:
    with closing(config.model_copy(update={"limit": 1000}).make()) as env:
        env.start([21, 22])
        for _ in range(STEPS_UNTIL_SEEDS_SHOW.get(type(config), 15)):
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
    if not env.rules.startswith("cartpole"):
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
    sight = Sight()
    sight.see(np.stack(player.frames[41]))
    sight.check("seed 41")
    assert len(np.unique(player.frames[41][0].reshape(-1, 3), axis=0)) > 8


def test_closing_twice_is_harmless_and_leaves_no_process_or_thread(config: GameConfig) -> None:
    before = set(engines())
    env = config.make(threads=2)
    env.start([1, 2, 3])
    started = set(engines()) - before
    assert len(started) == (3 if isinstance(config, DoomConfig) else 0)
    env.close()
    env.close()
    assert not set(engines()) & started


def test_a_score_names_its_rules_and_its_simulator() -> None:
    expected = {
        "doom": ("takecover-skill4-limit25", "vizdoom"),
        "carracing-envpool": ("carracing-v3-limit25", "gymnasium"),
        "carracing-gymnasium": ("carracing-v3-limit25", "gymnasium"),
        "gym-box": ("pendulum-v1-limit25", "gymnasium"),
        "gym-discrete": ("cartpole-v1-limit25", "gymnasium"),
        "gym-lander": ("lunarlander-v3-limit25", "gymnasium"),
        "gym-parts": (CONFIGS["gym-parts"].rules, "gymnasium"),
        "doom-choice": ("mywayhome-limit25-f3f517f6", "vizdoom"),
    }
    for name, told in expected.items():
        with closing(CONFIGS[name].make(scoring=True)) as env:
            assert (env.rules, env.backend.split("-")[0]) == told
            assert env.rules == CONFIGS[name].rules


# What every game declares


@pytest.mark.parametrize("skip", [1, 4])
def test_a_game_declares_policies_of_its_own_action_size_with_names_that_differ(config: GameConfig, skip: int) -> None:
    game = config.model_copy(update={"frame_skip": skip})
    policies = game.policies
    assert next(iter(policies)) == "random"
    assert len(policies) == 1 + len(game.blind)
    sizes = {len(policy.mean if hasattr(policy, "mean") else policy.first) for policy in (*policies.values(), game.random)}
    assert sizes == {game.action_size}
    for policy in policies.values():
        type(policy).model_validate(policy.model_dump())  # constants too are what params may say


def test_the_sweeps_of_take_cover_last_the_same_time_however_seldom_the_agent_looks() -> None:
    periods = {
        skip: {policy.name: policy.period for policy in DoomConfig(frame_skip=skip).blind if "sweep" in policy.name}
        for skip in (1, 4)
    }
    assert periods[1] == {f"sweep {tics}": tics for tics in (20, 36, 48, 72, 100)}
    assert list(periods[4].values()) == [5, 9, 12, 18, 25]
    assert DoomConfig(frame_skip=4).random.holds == [3, 5, 10, 20, 40]


def test_a_policy_that_does_not_look_earns_more_than_nothing_in_carracing() -> None:
    game = CarRacingConfig()
    with closing(BareWorld(game.make())) as world:
        returns = {
            name: run_episodes(world, blind_policy(policy), range(4)).total.mean() for name, policy in game.policies.items()
        }
    assert returns["slowly left"] > 20
    assert returns["random"] < 0


@pytest.mark.parametrize(
    ("game", "survival", "worth", "steps", "rate"),
    [
        (DoomConfig(frame_skip=4), True, 4.0, 525, 35 / 4),
        (DoomConfig(), True, 1.0, 2100, 35),
        (CarRacingConfig(frame_skip=3), False, 1.0, 334, 50 / 3),
        (GymConfig(id="CartPole-v1", limit=10, frame_skip=2, reward="survival"), True, 2.0, 5, 25),
        (GymConfig(id="Pendulum-v1", limit=10, reward="none"), False, 0.0, 10, 30),
    ],
)
def test_what_a_step_is_worth_and_how_many_there_are_follows_from_the_game(
    game: GameConfig, survival: bool, worth: float, steps: int, rate: float
) -> None:
    assert (game.survival, game.worth, game.steps) == (survival, worth, steps)
    assert game.frames_a_second == pytest.approx(rate)


def test_a_game_of_fewer_steps_is_the_same_game() -> None:
    game = DoomConfig(frame_skip=4)
    assert game.at_most(10).limit == 40
    assert game.at_most(10**6) == game.at_most(0) == game


@pytest.mark.parametrize(
    "config",
    [
        DoomConfig(limit=10, frame_skip=4),
        CarRacingConfig(limit=10, frame_skip=4),
        CarRacingConfig(backend="gymnasium", limit=10, frame_skip=4),
        GymConfig(id="Pendulum-v1", limit=10, frame_skip=4),
    ],
)
def test_the_last_step_is_shorter_if_the_limit_cuts_it(config: GameConfig) -> None:
    with closing(config.make()) as env, closing(config.model_copy(update={"frame_skip": 1}).make()) as once:
        assert config.steps == 3
        totals = []
        for game, steps in ((env, 3), (once, 10)):
            game.start([5])
            total = 0.0
            for _ in range(steps):
                step = game.step(np.full((1, game.action_size), 0.2, np.float32))
                total += float(step.rewards[0])
            assert step.truncated[0]
            totals.append(total)
    assert totals[0] == pytest.approx(totals[1], rel=1e-5)


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


@pytest.mark.parametrize("channels", [(), (1,)])
def test_grey_images_become_rgb(channels: tuple[int, ...]) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (64, 64, *channels), np.uint8)

    class Grey:
        observation_space = picture  # its shape and type are what is asked for

        def reset(self, **_: object) -> tuple[np.ndarray, dict[str, object]]:
            return picture, {}

    env = GymEnv(GymConfig(id="x", limit=1), Grey, lambda action: action, 1, crop=(0, 0, 0, 0))
    assert (env.start([0])[0] == picture.reshape(64, 64, 1)).all()


def seen(*episodes: np.ndarray) -> Sight:
    sight = Sight()
    for frames in episodes:
        sight.see(frames)
    return sight


BLACK = np.zeros((6, 64, 64, 3), np.uint8)
PICTURE = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), dtype=np.uint8)
STILL = np.repeat(PICTURE, 6, 0)
MOVING = np.concatenate([STILL, 255 - PICTURE])


def test_a_game_that_is_black_or_frozen_in_all_its_episodes_is_refused() -> None:
    with pytest.raises(EnvironmentFault, match="2 episodes: every frame is a single colour"):
        seen(BLACK, BLACK).check("2 episodes")
    with pytest.raises(EnvironmentFault, match="in all 12 frames, no picture ever changes"):
        seen(STILL, STILL).check("2 episodes")
    with pytest.raises(EnvironmentFault, match="no picture ever changes"):
        seen(STILL, np.flip(STILL, 1)).check("2 episodes")  # each another picture, and none moves


def test_nothing_may_happen_in_an_episode_if_something_does_in_another() -> None:
    for episodes in ((STILL, MOVING), (MOVING, STILL), (BLACK, MOVING, BLACK)):
        seen(*episodes).check("episodes")
    seen(STILL).check("too few frames to tell")
    Sight().check("nothing was played")


def test_a_sight_goes_on_where_another_one_was() -> None:
    begun = asdict(seen(MOVING))
    for more in (BLACK, STILL):
        sight = Sight(**begun)
        sight.see(more)
        sight.check("episodes")
        assert (sight.episodes, sight.frames) == (2, 13)


def test_a_crop_that_misses_the_game_is_refused() -> None:
    corner = GymConfig(id="CartPole-v1", limit=20, crop=(0, 0.9, 0, 0.9))
    with closing(corner.make()) as env, pytest.raises(EnvironmentFault, match=r"crop in params\.yaml"):
        seen(constant(env, [1.0, -1.0], 5)[0]).check("CartPole")


# Any Gymnasium environment


def test_any_environment_is_named_in_yaml_alone() -> None:
    node = {"kind": "gym", "id": "CarRacing-v3", "limit": 3, "crop": [0, 0.125, 0, 0]}
    config = validate({**node, "kwargs": {"continuous": False}}, "car.game", Game)
    with closing(config.make()) as env:
        frame = env.start([9])[0]
        assert env.action_size == 5
        assert env.rules.startswith("carracing-v3-limit3-")
    with closing(CarRacingConfig(backend="gymnasium").make()) as reference:
        np.testing.assert_array_equal(frame, reference.start([9])[0])


def test_frame_skip_holds_the_action_and_sums_the_rewards() -> None:
    once, held = (GymConfig(id="Pendulum-v1", limit=20, frame_skip=skip) for skip in (1, 2))
    assert once.rules == held.rules == "pendulum-v1-limit20"
    with closing(once.make()) as one, closing(held.make()) as two:
        film_one, total_one = constant(one, [0.3], 8)
        film_two, total_two = constant(two, [0.3], 4)
    np.testing.assert_array_equal(film_one[::2], film_two)
    assert total_one == pytest.approx(total_two, rel=1e-5)


@pytest.mark.parametrize(
    ("action", "once", "held"),
    [
        ([1.0], DoomConfig(limit=400), DoomConfig(limit=400, frame_skip=4)),  # to its death
        ([0.1, 1.0, -1.0], CarRacingConfig(limit=48), CarRacingConfig(limit=48, frame_skip=4)),
        (
            [0.1, 1.0, -1.0],
            CarRacingConfig(backend="gymnasium", limit=48),
            CarRacingConfig(backend="gymnasium", limit=48, frame_skip=4),
        ),
    ],
    ids=["doom", "carracing-envpool", "carracing-gymnasium"],
)
def test_an_action_held_is_the_same_game_seen_less_often(action: list[float], once: GameConfig, held: GameConfig) -> None:
    played = []
    for config in (once, held):
        with closing(config.make(threads=2)) as env:
            assert env.rules == config.rules == once.rules
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


def test_random_play_takes_every_option_of_a_choice_as_often() -> None:
    game = CONFIGS["gym-discrete"]
    policy = blind_policy(game.baseline)
    policy.start([Job(0, seed) for seed in range(4000)])
    taken = [chosen(action, game.choices)[0] for action in policy.act(torch.zeros(4000, 0)).numpy()]
    assert np.abs(np.bincount(taken) / 4000 - 0.5).max() < 4 * 0.5 / np.sqrt(4000)


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"scenario": "nowhere"}, "ViZDoom has basic, "),
        ({"scenario": "basic", "buttons": ["JUMPY"]}, "basic.cfg has MOVE_LEFT, MOVE_RIGHT, ATTACK"),
        ({"scenario": "my.cfg"}, "no ViZDoom scenario 'my.cfg'"),
        ({"buttons": ["ATTACK"]}, "Take Cover has the paper's one scalar"),
    ],
)
def test_a_scenario_that_cannot_be_played_is_refused_before_an_engine_starts(told: dict[str, object], message: str) -> None:
    with pytest.raises(ParamsError, match=message):
        validate({"kind": "vizdoom", **told}, "game", Game).choices  # noqa: B018


@pytest.mark.parametrize(("pay", "total"), [("events", 8.0), ("none", 0.0)])
def test_a_game_pays_what_is_declared(pay: str, total: float) -> None:
    game = GymConfig.model_validate({"id": "CartPole-v1", "limit": 8, "frame_skip": 4, "reward": pay})
    with closing(game.make()) as env:
        assert constant(env, [-1.0, 1.0], 2)[1] == total  # CartPole gives 1 for each game step
    assert game.rules == "cartpole-v1-limit8" + ("" if pay == "events" else f"-{pay}")


def test_survival_is_paid_where_the_game_pays_otherwise() -> None:
    game = GymConfig(id="Pendulum-v1", limit=8, reward="survival")
    with closing(game.make()) as env:
        assert constant(env, [0.5], 8)[1] == 8


@pytest.mark.parametrize("fails", ["reset", "render"])
def test_a_game_that_fails_at_its_start_is_named_with_its_seed(fails: str) -> None:
    config = GymConfig(id="Pendulum-v1", limit=8)

    def broken() -> object:
        game = open_game(config, drawing=True)

        def fail(*_: object, **__: object) -> None:
            raise RuntimeError("no OpenGL here")

        setattr(game, fails, fail)
        return game

    env = GymEnv(config, broken, lambda action: action, 1, crop=config.crop, look=drawn)
    with closing(env), pytest.raises(EnvironmentFault, match=r"limit8, seed 7: RuntimeError: no OpenGL here"):
        env.start([7])


def test_mujoco_warns_and_writes_no_log_into_the_folder(tmp_path, monkeypatch, capfd) -> None:
    pytest.importorskip("mujoco", reason="MuJoCo is not installed")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MUJOCO_GL", "egl")
    game = make_quietly("InvertedPendulum-v5", 5, {})
    game.reset(seed=0)
    game.unwrapped.data.qvel[0] = 1e20
    game.step(game.action_space.sample())
    game.close()
    assert "warning: MuJoCo: Nan, Inf or huge value" in capfd.readouterr().err
    assert not list(tmp_path.iterdir())


def test_without_a_display_games_are_drawn_off_screen() -> None:
    script = (
        "import os\n"
        "from worldmodels.games.any_gym import GymConfig, open_game\n"
        "open_game(GymConfig(id='CartPole-v1', limit=5), drawing=True).reset()\n"
        "print(os.environ['SDL_VIDEODRIVER'])\n"
    )
    own = {name: value for name, value in os.environ.items() if name not in ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER")}
    done = subprocess.run([sys.executable, "-c", script], env=own, capture_output=True, text=True, check=True)
    assert done.stdout.split()[-1] == "offscreen"
