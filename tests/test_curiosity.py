"""C paid for curiosity: what is paid, in which worlds, and what is refused before anything is trained."""

import pickle

import numpy as np
import pytest
import torch
from test_worlds import MovingPicture, controllers, dream

from worldmodels.controller.config import ControllerSection
from worldmodels.controller.phases.cmaes import CMAESConfig
from worldmodels.controller.phases.ppo import PPOConfig
from worldmodels.learning.initialisation import initialise
from worldmodels.memory.lstm import LSTMConfig
from worldmodels.rollout.loop import run_episodes
from worldmodels.vision.model import Vision, VisionConfig
from worldmodels.worlds.curiosity import Lived, Progress, Surprise, curiosity
from worldmodels.worlds.ensemble import Lessons, learn_ensemble
from worldmodels.worlds.pay import paid
from worldmodels.worlds.real import RealWorld


def memory_of(seed, done=True):
    memory = LSTMConfig(hidden=8, done=done).build(4, 1)
    initialise(memory, torch.Generator().manual_seed(seed))
    return memory.eval()


@pytest.fixture(scope="module")
def models():
    vision = Vision(VisionConfig(latent=4))
    initialise(vision, torch.Generator().manual_seed(0))
    return vision.eval(), memory_of(1)


@pytest.fixture(scope="module")
def rows():
    generator = torch.Generator().manual_seed(5)
    first = torch.arange(900) % 90 == 0
    return {
        "mean": torch.randn(900, 4, generator=generator),
        "log_variance": torch.full((900, 4), -6.0),
        "action": torch.rand(900, 1, generator=generator) * 2 - 1,
        "terminal": torch.arange(900) % 90 == 88,
        "first": first,
    }


def game(models, features="zh"):
    return RealWorld(MovingPicture(), *models, features)


def lived(world, policy, seed):
    """What one episode paid, whether it ended, and the latents and actions of it."""
    z, pay, actions = [], [], []
    world.start([seed])
    policy.start([type("Job", (), {"candidate": 0, "seed": seed})()])
    while True:
        z.append(world.latents().clone())
        actions.append(policy.act(world.features()))
        step = world.step(actions[-1])
        pay.append(float(step.reward[0]))
        if bool((step.terminal | step.truncated)[0]):
            return torch.cat([*z, world.latents()])[None], torch.cat(actions)[None], np.array(pay), bool(step.terminal[0])


def expected_surprise(memory, z, actions):
    """-log p(z') of every step of one episode, by a forward over the whole of it."""
    restart = torch.zeros(actions.shape[:2], dtype=torch.bool)
    restart[:, 0] = True
    with torch.no_grad():
        prediction, _, _ = memory(z[:, :-1], actions, restart, memory.initial_state(1))
    return -prediction.latent.log_prob(z[:, 1:]).mean(-1)[0].numpy()


@pytest.mark.parametrize("pay", ["surprise", "progress"])
def test_a_game_pays_for_what_came_in_units_of_the_data_and_its_end_is_a_cut(models, rows, pay):
    memory = models[1]
    before = memory_of(2)
    make = curiosity(pay, memory, before, rows, seed=0)
    scale = make.keywords["scale"]
    z, actions, told, terminal = lived(make(game(models)), controllers(1, 12, "zh"), 3)
    raw = expected_surprise(memory, z, actions)
    raw = raw if pay == "surprise" else expected_surprise(before, z, actions) - raw
    np.testing.assert_allclose(told[:-1], (raw[:-1] - scale.mean) / scale.std, rtol=1e-3, atol=1e-4)
    assert told[-1] == 0.0  # the frame behind an end is none that M foretells
    assert not terminal
    assert len(told) == 3 % 9 + 5


def test_the_data_pay_nothing_in_the_mean_and_one_in_the_spread(models, rows):
    memory = models[1]
    scale = curiosity("surprise", memory, None, rows, seed=0).keywords["scale"]
    at = Lived.of(rows, 0, torch.device("cpu"))
    with torch.no_grad():
        told, _ = Surprise(memory).judge(at.z, at.action, at.restart, Surprise(memory).begin(len(at.z), at.elapsed))
    pay = (told[at.counted] - scale.mean) / scale.std
    assert float(pay.mean()) == pytest.approx(0, abs=0.02)
    assert float(pay.std()) == pytest.approx(1, abs=0.05)
    ends = torch.cat([at.restart[:, 1:], torch.zeros(len(at.restart), 1, dtype=torch.bool)], 1)
    assert not bool((at.counted & ends).any()), "between two episodes there is no step"


def test_the_same_m_makes_no_progress_and_a_better_one_makes_some(models, rows):
    memory, worse = models[1], memory_of(1)
    at = Lived.of(rows, 0, torch.device("cpu"))

    def progress(now, before):
        both = Progress(now, before)
        with torch.no_grad():
            return both.judge(at.z, at.action, at.restart, both.begin(len(at.z), at.elapsed))[0]

    assert not bool(progress(memory, memory).any())
    with torch.no_grad():
        worse.head.bias[5 * 4 : 10 * 4] += 3.0  # the means of all Gaussians
    told = progress(memory, worse)
    assert float(told.mean()) > 0.5
    torch.testing.assert_close(told, -progress(worse, memory))
    with pytest.raises(ValueError, match="began from"):
        curiosity("progress", memory, None, rows, seed=0)


@pytest.mark.parametrize(("pay", "features"), [("surprise", "z"), ("progress", "zch"), ("disagreement", "zh")])
def test_a_curious_game_does_not_depend_on_the_lane_layout(models, rows, pay, features):
    make = curiosity(pay, models[1], memory_of(2), rows, seed=0)
    size = {"z": 4, "zh": 12, "zch": 20}[features]

    def play(lanes, seeds):
        return run_episodes(make(game(models, features)), controllers(2, size, features), seeds, candidates=2, lanes=lanes)

    seeds = list(range(12))
    whole, few, one = play(None, seeds), play(5, seeds), play(1, seeds[3:4])
    np.testing.assert_array_equal(whole.total, few.total)
    np.testing.assert_array_equal(whole.total[:, 3:4], one.total)
    assert not whole.terminal.any()
    assert len(np.unique(whole.total)) > 12


def test_an_ensemble_disagrees_where_it_has_seen_nothing_and_not_where_all_is_noise():
    draw = torch.Generator().manual_seed(0)
    x = torch.rand(4000, 3, generator=draw) * 2 - 1
    after = torch.stack([torch.sin(2 * x[:, 0]), torch.randn(4000, generator=draw)], 1)  # the second is noise
    ensemble = learn_ensemble(Lessons(x, after), seed=0)
    known = torch.rand(500, 3, generator=draw) * 2 - 1
    unknown = known + torch.tensor([4.0, 0.0, 0.0])
    foretold = ensemble(known).mean(0)[:, 0] * after[:, 0].std() + after[:, 0].mean()
    assert float((foretold - torch.sin(2 * known[:, 0])).square().mean()) < 0.05 * 0.5  # of the variance of what is known
    there, elsewhere = ensemble.disagreement(known), ensemble.disagreement(unknown)
    assert float(there.mean()) < 0.03
    assert float(elsewhere.quantile(0.1)) > 5 * float(there.quantile(0.9))
    again = learn_ensemble(Lessons(x, after), seed=0)
    assert torch.equal(again.disagreement(unknown), elsewhere)
    assert not torch.equal(learn_ensemble(Lessons(x, after), seed=1).disagreement(unknown), elsewhere)


def test_a_dream_pays_for_disagreement_goes_on_to_its_limit_and_knows_nothing_of_the_game(models, rows):
    make = curiosity("disagreement", models[1], None, rows, seed=0)
    told = run_episodes(make(dream(models, limit=20)), controllers(1, 20), range(9))
    assert (told.length == 20).all()
    assert not told.terminal.any()
    assert len(np.unique(told.total)) == 9


def test_what_a_dream_pays_is_the_disagreement_over_what_its_m_remembers(models, rows):
    memory = models[1]
    make = curiosity("disagreement", memory, None, rows, seed=0)
    ensemble, scale = make.keywords["ensemble"], make.keywords["scale"]
    world = make(dream(models, limit=30))
    world.start([1, 2])
    for _ in range(12):
        action = torch.full((2, 1), 0.3)
        x = torch.cat([world.latents(), memory.outputs(world.state()), action], 1)
        step = world.step(action)
        expected = (ensemble.disagreement(x) - scale.mean) / scale.std
        torch.testing.assert_close(step.reward, expected, rtol=1e-4, atol=1e-4)


def test_the_pay_can_be_sent_to_workers_and_is_the_same_there(models, rows):
    make = curiosity("surprise", models[1], None, rows, seed=0)
    sent = pickle.loads(pickle.dumps(make))
    one, other = (run_episodes(each(game(models)), controllers(1, 12, "zh"), range(4)).total for each in (make, sent))
    np.testing.assert_array_equal(one, other)


def test_other_pays_are_as_they_were(models):
    one, other = (
        run_episodes(world, controllers(1, 12, "zh"), range(5)).total
        for world in (paid(game(models), "return", curiosity=None), game(models))
    )
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("pay", ["surprise", "progress"])
@pytest.mark.parametrize("kind", [PPOConfig, CMAESConfig])
def test_what_a_dream_cannot_pay_is_refused(pay, kind):
    budget = {"updates": 1} if kind is PPOConfig else {"generations": 1}
    assert kind(**budget, world="game", pay=pay).pay == pay
    with pytest.raises(ValueError, match="nothing comes but what M foretells"):
        kind(**budget, world="dream", pay=pay)
    assert kind(**budget, world="dream", pay="disagreement").world == "dream"


def test_disagreement_in_the_game_needs_a_c_that_sees_m_and_an_untrained_m_knows_nothing_to_be_curious_of():
    def section(pay, features, memory="trained"):
        phases = {"learn": {"kind": "ppo", "updates": 1, "world": "game", "pay": pay}}
        return ControllerSection(model={"features": features}, order=["learn"], phases=phases, memory=memory)

    assert section("disagreement", "zh").generations == section("surprise", "z").generations == 1
    with pytest.raises(ValueError, match="features with h"):
        section("disagreement", "z")
    with pytest.raises(ValueError, match="needs an M that was trained"):
        section("surprise", "zh", memory="untrained")
