"""The search for C: its coordinates, its phases, and the choice of the contestant that is kept."""

import numpy as np
import pytest
import torch

from worldmodels.controller.basis import SKIPPED, Basis, played_features, principal_directions
from worldmodels.controller.config import ControllerSection
from worldmodels.controller.model import ControllerConfig, Controllers, act, parameter_count
from worldmodels.controller.phases.base import Given
from worldmodels.controller.phases.cmaes import CMAESConfig, Evolution
from worldmodels.controller.phases.ppo import PPOConfig
from worldmodels.controller.selection import SelectionConfig, choose
from worldmodels.controller.training import contestants_of, steps_of, train_controller
from worldmodels.games.doom import DoomConfig
from worldmodels.memory.lstm import LSTMConfig
from worldmodels.memory.make import new_memory
from worldmodels.memory.prediction import STRETCHES
from worldmodels.shapes import Returns


def quiet(row):
    """Observe nothing."""


@pytest.mark.parametrize("covariance", ["full", "diagonal"])
def test_the_search_depends_on_its_seed_and_the_fitness_alone(covariance):
    config = CMAESConfig(generations=10, population=6, sigma=0.5, covariance=covariance)

    def run(seed, disturb):
        search = Evolution(config, np.zeros(4), seed)
        for _ in range(10):
            if disturb:
                np.random.seed(1)
                np.random.rand()
            candidates = search.ask()
            search.tell(-((candidates - 1) ** 2).sum(1))
        return search.mean

    np.testing.assert_array_equal(run(1, False), run(1, True))
    assert (run(1, False) != run(2, False)).any()


@pytest.mark.parametrize("hidden", [0, 3])
@pytest.mark.parametrize("bias", [False, True])
def test_in_a_basis_C_acts_on_the_components_of_its_features(hidden, bias):
    random = np.random.default_rng(0)
    directions = np.linalg.qr(random.standard_normal((7, 4)))[0].T
    config = ControllerConfig(features="zh", hidden=hidden, bias=bias)
    basis = Basis(directions, config, actions=2)
    coordinates = random.standard_normal((5, parameter_count(config, 4, 2)))
    parameters = basis.expand(coordinates)
    assert basis.size == coordinates.shape[1]
    features = torch.randn(5, 7, dtype=torch.float64)
    each = torch.arange(5)
    whole = act(features, Controllers(config, torch.from_numpy(parameters), 7, 2).weights(each))
    small = act(
        features @ torch.from_numpy(directions.T), Controllers(config, torch.from_numpy(coordinates), 4, 2).weights(each)
    )
    torch.testing.assert_close(whole, small)


def test_principal_directions_are_those_of_most_variance():
    random = np.random.default_rng(0)
    axes = np.linalg.qr(random.standard_normal((6, 6)))[0]
    features = random.standard_normal((5000, 6)) * [5, 3, 1, 0.1, 0.1, 0.1] @ axes + 7
    found = principal_directions(features, 3)
    np.testing.assert_allclose(found @ found.T, np.eye(3), atol=1e-12)
    assert (np.abs((found * axes[:3]).sum(1)) > 0.99).all()
    assert principal_directions(features, 99).shape == (6, 6)


def test_features_of_the_data_are_those_that_a_player_would_have_seen():
    memory = new_memory(LSTMConfig(hidden=4), 3, 1, 0)
    length = 50  # every stretch is all of it
    rows = {"mean": torch.randn(length, 3).half(), "action": torch.randn(length, 1), "first": torch.arange(length) % 20 == 0}
    rows["log_variance"] = torch.tensor([0.0, 0.0, -40.0]).repeat(length, 1)
    seen = played_features("zch", memory, rows).reshape(length - 1 - SKIPPED, STRETCHES, 11)[:, 0]
    state, expected = memory.initial_state(1), []
    for row in range(length):
        if rows["first"][row]:
            state = memory.initial_state(1)
        z = rows["mean"][row].float()[None]
        expected.append(torch.cat([z, memory.features("zch", state)], 1)[0])
        _, state = memory.observe(z[None], rows["action"][row][None, None], rows["first"][row][None, None], state)
    np.testing.assert_allclose(seen, torch.stack(expected)[SKIPPED + 1 :].detach(), atol=1e-5)
    sampled = played_features("z", memory, rows, seed=3).reshape(length - 1 - SKIPPED, STRETCHES, 3)
    noise = sampled - seen[:, None, :3]
    np.testing.assert_allclose(noise.std((0, 1)), [1.0, 1.0, 0.0], atol=0.05)
    np.testing.assert_array_equal(played_features("z", memory, rows, seed=3).ravel(), sampled.ravel())


class Ground:
    """An arena whose returns grow with C's first weight, or fall with its distance from a place."""

    def __init__(self, size=1, best=None):
        self.feature_size, self.action_size, self.best = size, 1, best

    def play(self, config, candidates, seeds, lanes):
        total = candidates[:, :1] if self.best is None else -np.abs(candidates[:, :1] - self.best)
        total = total.repeat(len(seeds), 1)
        return Returns(total, np.ones_like(total, int), np.zeros_like(total, bool), np.array(seeds))

    def close(self):
        """Nothing to free."""


class Grounds:
    """Worlds of the least kind: in every dream the first weight counts, in the game its distance from a place."""

    action_size = 1

    def __init__(self, size=1, best=None):
        self.feature_size, self.best = size, best

    def dream(self, moments, *, num_steps, temperature, **pay):
        return "dream"

    def play(self, *, num_steps=0, **pay):
        return "game"

    def arena(self, open_world, told=None):
        return Ground(self.feature_size, self.best if open_world == "game" else None)

    def seen(self, seed=None):
        return np.random.default_rng(0).normal(size=(50, self.feature_size)) * [9, 1, 1][: self.feature_size]


def searched(worlds, start, episodes=0, **phases):
    section = ControllerSection(
        model={"features": "z", "bias": False},
        order=list(phases),
        phases={name: {"kind": "cmaes", "population": 8, **phase} for name, phase in phases.items()},
        selection={"episodes": episodes, "every": 5},
    )
    how = {"seed": 0, "stream": "s", "controller_seed": 0, "generations": range(99), "observe": quiet}
    return train_controller(section, worlds, start, **how)


@pytest.mark.parametrize(("best", "kept"), [(2.0, -1), (1000.0, 9)])
def test_a_dream_that_misleads_leaves_the_C_that_the_search_began_with(best, kept):
    start = np.array([2.0])
    chosen, _, curve = searched(Grounds(best=best), start, episodes=2, dream={"generations": 10})
    selected = {row["generation"]: row["mean"] for row in curve if row["phase"] == "selection"}
    assert list(selected) == [-1, 4, 9]
    assert all(row["stderr"] == row["std"] / 2**0.5 for row in curve if row["phase"] == "selection")
    assert max(selected, key=selected.get) == kept
    assert (float(chosen[0]) == start[0]) == (kept == -1)


def test_halvings_keep_the_best_at_a_part_of_the_cost_and_say_on_how_many_episodes():
    class Luck(Ground):
        played = 0

        def play(self, config, candidates, seeds, lanes):
            self.played += len(candidates) * len(seeds)
            noise = np.random.default_rng(len(candidates)).normal(0, 30, (len(candidates), len(seeds)))
            return Returns(candidates[:, :1] + noise, np.ones(noise.shape, int), np.zeros(noise.shape, bool), np.array(seeds))

    config = SelectionConfig(episodes=256, halvings=3)
    model, arena, rounds = ControllerConfig(features="z", hidden=0, bias=False), Luck(), []
    contestants = {generation: np.array([10.0 * (generation % 16)]) for generation in range(16)}
    chosen = choose(contestants, config, model, arena, range(256), played=[], observe=lambda: rounds.append(1))
    assert chosen.kept == 15
    assert len(rounds) == 4
    assert arena.played == 16 * 32 + 8 * 32 + 4 * 64 + 2 * 128 < 16 * 256 / 3
    episodes = {row["generation"]: row["episodes"] for row in chosen.rows}
    assert list(episodes) == list(contestants)
    assert sorted(episodes.values()) == [32] * 8 + [64] * 4 + [128] * 2 + [256] * 2
    assert all(row["stderr"] == row["std"] / row["episodes"] ** 0.5 for row in chosen.rows)
    assert chosen.rejected == [generation for generation in contestants if episodes[generation] > 32 and generation != 15]
    two = {generation: contestants[generation] for generation in (3, 9)}
    alone = choose(two, config, model, Luck(), range(256), played=[], observe=lambda: None)
    assert (alone.kept, [row["episodes"] for row in alone.rows]) == (9, [32, 32])  # who is alone has nothing to prove
    with pytest.raises(ValueError, match="at least 512 episodes"):
        SelectionConfig(episodes=256, halvings=9)


def phase(**settings):
    return {"kind": "ppo", "updates": 4, **settings}


def test_a_phase_with_several_runs_is_the_last_and_needs_a_selection_that_tells_them_apart():
    section = {"model": {"features": "zh"}, "order": ["one"], "phases": {"one": phase(runs=2)}, "selection": {"episodes": 8}}
    assert ControllerSection(**section).generations == 8
    with pytest.raises(ValueError, match="the selection needs episodes"):
        ControllerSection(**section | {"selection": {}})
    two = {"order": ["one", "two"], "phases": section["phases"] | {"two": phase()}}
    with pytest.raises(ValueError, match="must be the last phase"):
        ControllerSection(**section | two)


def test_the_order_names_each_phase_once():
    section = {"model": {"features": "zh"}, "phases": {"one": phase(), "two": phase()}}
    assert [step.phase for step in steps_of(ControllerSection(**section, order=["two", "one"]))] == ["two"] * 4 + ["one"] * 4
    for order in (["one"], ["one", "one"], ["one", "two", "three"]):
        with pytest.raises(ValueError, match="name each phase once"):
            ControllerSection(**section, order=order)


def test_what_may_be_kept_is_the_end_of_each_phase_and_run_and_some_generations_between():
    section = {"model": {"features": "zh"}, "order": ["one", "two"]}
    section |= {"phases": {"one": phase(updates=5), "two": phase(updates=3, runs=2)}}
    choice = ControllerSection(**section, selection={"episodes": 8, "every": 4})
    assert contestants_of(choice) == {3, 4, 7, 10}
    assert contestants_of(ControllerSection(**section, selection={"episodes": 8})) == {4, 7, 10}
    alone = {**section, "phases": {"one": phase(updates=5), "two": phase(updates=3)}}
    assert contestants_of(ControllerSection(**alone)) == {7}


def test_a_phase_begins_at_the_C_of_the_phase_before_it_and_keeps_what_lies_outside_its_components():
    start = np.array([0.5, 2.0, -7.0])
    one, *_ = searched(Grounds(3), start, dream={"generations": 8, "components": 1})
    both, *_ = searched(Grounds(3), start, dream={"generations": 8, "components": 1}, more={"generations": 3, "components": 1})
    assert start[0] < one[0] < both[0]
    along = principal_directions(Grounds(3).seen(), 1)
    for chosen in (one, both):
        moved = chosen.double().numpy() - start
        np.testing.assert_allclose(moved - moved @ along.T @ along, 0, atol=1e-6)


def test_a_search_that_cannot_run_is_known_before_anything_is_trained():
    linear, wide = (ControllerConfig(features="zch", hidden=hidden) for hidden in (0, 64))
    game, memory = DoomConfig(frame_skip=4), LSTMConfig(hidden=512)

    def wrong(given, **settings):
        return CMAESConfig(generations=1, **settings).check(given)

    assert not wrong(Given(game, memory, linear, 1088))
    assert "69,761 coordinates" in wrong(Given(game, memory, wide, 1088))[0]
    assert not wrong(Given(game, memory, wide, 1088), covariance="diagonal")
    assert not wrong(Given(game, memory, wide, 1088), components=64)
    assert "done head" in wrong(Given(game, LSTMConfig(hidden=512, done=False), linear, 1088), pay="hazard")[0]
    assert "525 steps at most" in wrong(Given(game, memory, linear, 1088), moments={"share": 0.5, "context": 600})[0]
    collection = {"updates": 1, "num_envs": 2, "num_steps": 8}
    assert not PPOConfig(**collection, batch_size=16).check(Given(game, memory, linear, 1088))
    assert "= 16 steps" in PPOConfig(**collection, batch_size=17).check(Given(game, memory, linear, 1088))[0]
