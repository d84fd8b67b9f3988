"""CarRacing: the paper's controls and scores, on both back ends."""

from contextlib import closing

import numpy as np
import pytest
from games import constant

from worldmodels.games.carracing import CarRacingConfig, car_controls
from worldmodels.games.frames import resize
from worldmodels.games.gym_open import make_quietly
from worldmodels.rollout.bare import BareWorld, play_blind
from worldmodels.rollout.loop import run_episodes
from worldmodels.rollout.policies import blind_policy

BACKENDS = pytest.mark.parametrize("backend", ["envpool", "gymnasium"])


def test_car_controls_are_the_papers() -> None:
    actions = np.array([[-1, -1, -1], [0, 0, 0], [0.5, 1, 1], [1, -0.5, 0.25]], np.float32)
    expected = np.array([[-1, 0, 0], [0, 0.5, 0], [0.5, 1, 1], [1, 0.25, 0.25]])
    np.testing.assert_allclose(car_controls(actions), expected)
    assert car_controls(actions).dtype == np.float32


@BACKENDS
def test_gas_speeds_the_car_up_and_the_brake_stops_it(backend: str) -> None:
    config = CarRacingConfig.model_validate({"backend": backend})
    with closing(config.make()) as env:
        idle = constant(env, [0, -1, -1], 80)[0][60:]  # past the opening zoom
        driven, total = constant(env, [0, 0, -1], 80)
        driven = driven[60:]
        env.start([5])
        for _ in range(60):
            env.step(np.array([[0, 0, -1]], np.float32))
        braked = np.stack([env.step(np.array([[0, -1, 1]], np.float32)).frames[0] for _ in range(60)])[40:]
    motion = [np.abs(np.diff(film.astype(int), axis=0)).mean() for film in (idle, driven, braked)]
    assert motion[1] > 0.3
    assert motion[1] > 10 * motion[0]
    assert motion[1] > 10 * motion[2]
    assert total > 0  # tiles were reached


@BACKENDS
def test_negative_steering_turns_left(backend: str) -> None:
    config = CarRacingConfig.model_validate({"backend": backend})
    with closing(config.make()) as env:
        turned = {}
        for steer in (-0.3, 0.3):
            env.start([5])
            for _ in range(60):
                env.step(np.array([[0, -0.4, -1]], np.float32))
            for _ in range(14):
                frame = env.step(np.array([[steer, -0.4, -1]], np.float32)).frames[0]
            grey = np.abs(frame.astype(int) - frame.mean(axis=2, keepdims=True)).max(axis=2) < 12  # the road
            turned[steer] = np.nonzero(grey[15:35])[1].mean()
            env.keep(np.zeros(0, np.int64))
    assert turned[-0.3] > turned[0.3] + 5  # who looks left sees the road ahead move to the right


@BACKENDS
def test_leaving_the_field_ends_the_game_with_a_penalty(backend: str) -> None:
    config = CarRacingConfig.model_validate({"backend": backend})
    with closing(config.make()) as env:
        env.start([6])
        for _ in range(1000):
            step = env.step(np.array([[0, 0, -1]], np.float32))
            if step.terminal[0] or step.truncated[0]:
                break
    assert step.terminal[0]
    assert not step.truncated[0]
    assert step.rewards[0] == -100


@BACKENDS
def test_the_dashboard_is_cut_and_colours_are_rgb(backend: str) -> None:
    config = CarRacingConfig.model_validate({"backend": backend})
    with closing(config.make()) as env:
        frame = constant(env, [0, 0, -1], 60)[0][-1].astype(int)
    assert (frame[-3:].max(axis=(1, 2)) > 100).all()  # the dashboard is black
    assert frame[..., 1].mean() > frame[..., 0].mean() > 50  # grass
    reddest = frame[..., 0] - frame[..., 1]
    rows, columns = np.nonzero(reddest[40:] > 60)  # below the red and white kerbs
    assert 50 < 40 + rows.mean() < 60
    assert 28 < columns.mean() < 36


@pytest.mark.parametrize("seed", [9, 10])
def test_the_reference_backend_is_gymnasiums_own_game(seed: int) -> None:
    """To the pixel, at rest and at speed, turning and beside the road, though it is drawn in other steps."""
    rng = np.random.default_rng(seed)
    game = make_quietly("CarRacing-v3", 1000, {})
    pictures, rewards, steer = [game.reset(seed=seed)[0]], [], 0.0
    with closing(CarRacingConfig().make(scoring=True)) as env:
        frames, earned = [env.start([seed])[0]], []
        for _ in range(150):
            steer = float(np.clip(0.9 * steer + 0.3 * rng.standard_normal(), -1, 1))
            action = np.array([[steer, 0.2, -1]], np.float32)
            step = env.step(action)
            frames.append(step.frames[0])
            earned.append(float(step.rewards[0]))
            picture, reward, *_ = game.step(car_controls(action)[0])
            pictures.append(picture)
            rewards.append(reward)
    game.close()
    np.testing.assert_array_equal(np.stack(frames), resize(np.stack(pictures)[:, :84]))
    np.testing.assert_array_equal(earned, np.array(rewards, np.float32))


@pytest.mark.parametrize(("scoring", "backend"), [(False, "envpool"), (True, "gymnasium")])
def test_a_game_is_played_on_the_back_end_that_trains_or_scores(scoring: bool, backend: str) -> None:
    with closing(CarRacingConfig().make(scoring=scoring)) as env:
        assert env.backend.startswith(backend)


def test_a_lap_ends_when_all_tiles_are_touched_and_not_at_95_percent() -> None:
    """What Gymnasium documents is another rule. Scores are of this one: with the other they would not compare."""
    game = make_quietly("CarRacing-v3", 1000, {})
    game.reset(seed=5)
    play = game.unwrapped
    rest = np.array([0, 0, 0], np.float32)
    for _ in range(20):
        game.step(rest)
    tiles = len(play.track)
    assert play.road[0].road_visited  # the car stands on the first tile
    for tile in play.road:
        tile.road_visited = True
    ends = {}
    for missing in (tiles // 25, 1, 0):
        play.tile_visited_count = tiles - missing
        play.car.wheels[0].tiles.clear()
        ends[missing] = game.step(rest)[2]
    game.close()
    assert ends == {tiles // 25: False, 1: False, 0: True}


def test_a_lap_that_lacks_a_few_tiles_goes_on_over_the_start() -> None:
    """Driven over: the first tile is touched again after 98% of the others, and nothing ends."""
    game = make_quietly("CarRacing-v3", 1000, {})
    game.reset(seed=5)
    play = game.unwrapped
    for _ in range(20):
        game.step(np.array([0, 0, 0], np.float32))
    play.tile_visited_count = int(0.98 * len(play.track))
    listener, wheel = play.contactListener_keepref, play.car.wheels[0]

    class Fixture:
        def __init__(self, body: object) -> None:
            self.body = type("Body", (), {"userData": body})

    contact = type("Contact", (), {"fixtureA": Fixture(play.road[0]), "fixtureB": Fixture(wheel)})
    listener.BeginContact(contact)
    assert not game.step(np.array([0, 0, 0], np.float32))[2]
    game.close()


def test_policies_that_do_not_look_earn_the_same_if_nothing_is_drawn() -> None:
    game = CarRacingConfig(limit=60)
    policy = game.policies["gas"]
    unseen = play_blind(game, policy, [1, 2], 2)
    with closing(BareWorld(game.make(scoring=True))) as drawn:
        seen = run_episodes(drawn, blind_policy(policy), [1, 2])
    assert unseen.total.tolist() == seen.total.tolist()
    assert not game.make_unseen().start([1]).any()
    assert game.make(scoring=True).start([1]).any()
