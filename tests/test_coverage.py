"""Where play gets to on a map: the map itself, what is counted, and that nobody else hears of it."""

import json
from contextlib import closing

import numpy as np
import pandas as pd
import psutil
import pytest
from games import Player, engines

from worldmodels.cli.evaluate import evaluation_text
from worldmodels.games import doom, doom_engine
from worldmodels.games.choices import option
from worldmodels.games.doom import DoomConfig
from worldmodels.games.maps import MY_WAY_HOME
from worldmodels.rollout.bare import BareWorld, play_blind
from worldmodels.rollout.coverage import coverage, coverage_in, coverage_of
from worldmodels.rollout.loop import EpisodeRecorder, run_episodes
from worldmodels.rollout.policies import blind_policy
from worldmodels.rollout.scores import join
from worldmodels.shapes import Episode, Returns
from worldmodels.storage.episodes import EpisodeWriter
from worldmodels.tracking.points import scores_of

HOME = DoomConfig(scenario="my_way_home", frame_skip=4, limit=120)


def test_the_rooms_of_my_way_home_are_the_sectors_of_its_map():
    game = doom_engine.configured(HOME.setup)
    game.set_sectors_info_enabled(True)
    game.set_window_visible(False)
    game.set_doom_config_path("/dev/null")
    game.init()
    sectors = game.get_state().sectors
    game.close()
    assert MY_WAY_HOME.rooms == len(sectors) == 18

    def inside(sector, x, y):
        """Whether a ray from the place crosses the walls of the sector an odd number of times."""
        crossed = [(w.x1, w.y1, w.x2, w.y2) for w in sector.lines if (w.y1 > y) != (w.y2 > y)]
        return sum(x < x1 + (y - y1) / (y2 - y1) * (x2 - x1) for x1, y1, x2, y2 in crossed) % 2 == 1

    for x in np.arange(150.5, 1130, 7):
        for y in np.arange(-710.5, 140, 7):
            cell = MY_WAY_HOME.cell_at(x, y)
            found = [number for number, sector in enumerate(sectors) if inside(sector, x, y)]
            assert found == ([] if cell is None else [MY_WAY_HOME.room_of[cell]]), (x, y)


def test_an_episode_counts_the_cells_that_it_came_to_whatever_lane_it_is_in():
    def play(lanes):
        policy = blind_policy(HOME.random)
        with closing(BareWorld(HOME.make(threads=2))) as world:
            return run_episodes(world, policy, range(6), lanes=lanes)

    whole, few = play(None), play(2)
    assert whole.visited.shape == (1, 6, len(MY_WAY_HOME))
    np.testing.assert_array_equal(whole.visited, few.visited)
    assert len(np.unique(whole.visited.sum(-1))) > 1
    assert whole.visited.any(-1).all()
    assert len(np.unique(whole.visited[0], axis=0)) > 3


def test_who_stands_still_stays_in_one_cell_and_who_walks_leaves_it():
    with closing(HOME.make()) as env:
        env.start([3])
        for number in (0, 3):  # still, then forward
            for _ in range(10):
                env.step(np.array([option(number, 6)], np.float32))
            if number == 0:
                assert env.visited.sum() == 1
        cells = np.flatnonzero(env.visited[0])
        assert len(cells) > 1
        env.start([4])
        env.keep(np.array([1]))
        assert env.visited.sum() == 1


def test_an_engine_that_is_replaced_loses_no_cells():
    def play(harm):
        with closing(HOME.make()) as env:
            before = set(engines())
            env.start([3])
            for number in range(20):
                if number == 15 and harm:
                    (engine,) = set(engines()) - before
                    psutil.Process(engine).kill()
                env.step(np.array([option(3, 6)], np.float32))
            return env.visited

    np.testing.assert_array_equal(play(harm=True), play(harm=False))


def test_shares_are_of_episodes_and_of_the_map():
    rooms = MY_WAY_HOME.room_of
    visited = np.zeros((2, len(MY_WAY_HOME)), bool)
    visited[0, rooms == 0] = True
    visited[1, np.flatnonzero(rooms == 0)[0]] = visited[1, np.flatnonzero(rooms == 8)[0]] = True
    shares = coverage(MY_WAY_HOME, visited, np.array([False, True]))
    cells = (rooms == 0).sum()
    assert shares["success"] == 0.5
    assert shares["rooms"] == pytest.approx((1 + 2) / 2 / 18)
    assert shares["all_rooms"] == pytest.approx(2 / 18)
    assert shares["cells"] == pytest.approx((cells + 2) / 2 / len(MY_WAY_HOME))
    assert shares["all_cells"] == pytest.approx((cells + 1) / len(MY_WAY_HOME))


def test_only_an_end_that_pays_is_a_success_and_parts_of_a_test_are_one():
    visited = np.ones((1, 3, len(MY_WAY_HOME)), bool)
    total, terminal = np.array([[0.9, -0.1, 0.5]]), np.array([[True, True, False]])
    returns = Returns(total, np.ones((1, 3), int), terminal, np.arange(3), visited)
    assert coverage_of(returns, MY_WAY_HOME)["coverage"]["success"] == pytest.approx(1 / 3)
    assert coverage_of(join([returns, returns]), MY_WAY_HOME) == coverage_of(returns, MY_WAY_HOME)
    assert coverage_of(returns, None) == {}


def test_the_table_of_episodes_remembers_what_each_one_came_to(tmp_path):
    random = np.random.default_rng(0)
    cells = random.random((4, len(MY_WAY_HOME))) < 0.3
    writer = EpisodeWriter(tmp_path / "episodes", 1)
    frames = random.integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    for seed, visited in enumerate(cells):
        rewards = np.array([0.0, float(seed % 2)], np.float32)
        writer.write(Episode(frames, np.zeros((2, 1), np.float32), rewards, seed > 1, seed, visited), "a" if seed else "b")
    (tmp_path / "earlier.json").write_text('{"shards": []}')
    writer.finish(tmp_path / "data.json", tmp_path / "earlier.json", judge=lambda rows: coverage_in(rows, MY_WAY_HOME))
    told = json.loads((tmp_path / "data.json").read_text())
    table = pd.read_parquet(tmp_path / "episodes/episodes.parquet")
    assert told["coverage"] == coverage(MY_WAY_HOME, cells, np.array([False, False, False, True]))
    assert told["policies"]["a"]["coverage"] == coverage_in(table[1:], MY_WAY_HOME)["coverage"]
    assert told["policies"]["b"]["coverage"]["all_cells"] == pytest.approx(cells[0].mean())
    assert coverage_in(table[:0], MY_WAY_HOME) == {}


def test_a_person_and_mlflow_are_told():
    shares = {"success": 0.25, "rooms": 0.5, "cells": 0.1, "all_rooms": 1.0, "all_cells": 0.9}
    summary = {"mean": 0.1, "std": 0.2, "stderr": 0.1, "n": 4, "min": -0.2, "max": 1.0, "mean_length": 100.0, "seeds": [0, 3]}
    about = {"agent": "a", "world": "real", "environment": "home", "temperature": None, "rules": "r", "backend": "b"}
    about |= {"first": 0, "returns": [0.0, 1.0]}
    assert "success  25% of the episodes; 50% of the rooms" in evaluation_text(about | {"summary": summary, "coverage": shares})
    assert "success" not in evaluation_text(about | {"summary": summary})
    told = scores_of({"real": summary, "coverage": shares})
    assert (told["Agent/success"], told["Agent/all_rooms"], told["Agent/score"]) == (0.25, 1.0, 0.1)


def test_games_without_a_map_say_nothing_and_their_table_has_no_such_column(tmp_path):
    game = DoomConfig(limit=40, frame_skip=4)
    returns = play_blind(game, game.random, range(2), 2)
    assert game.map is None
    assert returns.visited is None
    assert join([returns, returns]).visited is None
    kept = []
    with closing(BareWorld(game.make())) as world:
        run_episodes(world, blind_policy(game.random), [1], recorder=EpisodeRecorder(kept.append))
    assert kept[0].visited is None
    writer = EpisodeWriter(tmp_path, 1)
    writer.write(kept[0], "random")
    assert "visited" not in writer.rows[0]


def test_a_recorded_episode_has_the_cells_and_the_policy_sees_none_of_them():
    kept, seen = [], []

    class Looking:
        def __init__(self):
            self.policy = blind_policy(HOME.random)

        def start(self, jobs):
            self.policy.start(jobs)

        def act(self, features):
            seen.append(features.shape[1])
            return self.policy.act(features)

        def keep(self, lanes):
            self.policy.keep(lanes)

    with closing(BareWorld(HOME.make())) as world:
        returns = run_episodes(world, Looking(), [5, 6], recorder=EpisodeRecorder(kept.append))
    assert set(seen) == {0}
    for episode in kept:
        np.testing.assert_array_equal(episode.visited, returns.visited[0, [5, 6].index(episode.seed)])


def test_frames_and_rewards_do_not_depend_on_the_counting(monkeypatch):
    def play():
        with closing(HOME.make()) as env:
            player = Player(env)
            player.start(7)
            player.step(12)
            return player.film(7, 12), player.rewards[7]

    counted = play()
    monkeypatch.setattr(doom, "MAPS", {})
    plain = play()
    np.testing.assert_array_equal(counted[0], plain[0])
    assert counted[1] == plain[1]
