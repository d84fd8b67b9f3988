"""V, M, C: the paper's sizes, and the maths against independent references and known limits."""

import json
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import distributions

from worldmodels.compute import precision
from worldmodels.compute.precision import cpu_flags, products_in, training_in
from worldmodels.controller.model import ControllerConfig, Controllers, act, parameter_count
from worldmodels.errors import ParamsError
from worldmodels.learning.initialisation import initialise
from worldmodels.memory.features import feature_size, select_features
from worldmodels.memory.levels import VALUES, two_hot
from worldmodels.memory.lstm import LSTMConfig
from worldmodels.memory.make import MemoryConfig, memory_from_description, new_memory
from worldmodels.memory.mixture import Mixture
from worldmodels.memory.prediction import MemoryLossConfig, memory_loss
from worldmodels.memory.recurrence import Recurrence
from worldmodels.params import validate
from worldmodels.vision.model import Vision, VisionConfig, VisionLossConfig, to_frames, to_images


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(
    ("latent", "action", "hidden", "done", "features", "bias", "sizes"),
    [
        (32, 3, 256, False, "zh", True, (4_348_547, 422_368, 867)),
        (64, 1, 512, True, "zch", False, (4_446_915, 1_678_785, 1_088)),
    ],
    ids=["carracing", "takecover"],
)
def test_the_models_have_the_papers_parameter_counts(latent, action, hidden, done, features, bias, sizes):
    vision = Vision(VisionConfig(latent=latent))
    memory = LSTMConfig(hidden=hidden, done=done).build(latent, action)
    controller = ControllerConfig(features=features, hidden=0, bias=bias)
    inputs = feature_size(features, latent, memory)
    assert (count(vision), count(memory), parameter_count(controller, inputs, action)) == sizes


def test_the_papers_ablation_with_a_hidden_layer_has_1443_parameters():
    assert parameter_count(ControllerConfig(features="z", hidden=40, bias=True), 32, 3) == 1443


def test_m_has_one_bias_vector_and_mixture_weights_for_every_latent_dimension():
    memory = LSTMConfig(hidden=8, done=False).build(4, 1)
    assert [name for name, _ in memory.named_parameters() if "bias" in name] == ["bias", "head.bias"]
    prediction = memory.predict(torch.zeros(2, 3, 8))
    assert prediction.latent.logits.shape == (2, 3, 5, 4)


def random_mixture(shape, generator):
    return Mixture(*(torch.randn(*shape, generator=generator) for _ in range(3)))


def test_the_mixture_likelihood_is_that_of_torch_distributions():
    generator = torch.Generator().manual_seed(1)
    mixture = random_mixture((6, 5, 7), generator)
    z = torch.randn(6, 7, generator=generator)
    reference = distributions.MixtureSameFamily(
        distributions.Categorical(logits=mixture.logits.mT),
        distributions.Normal(mixture.mean.mT, mixture.log_std.mT.exp()),
    )
    torch.testing.assert_close(mixture.log_prob(z), reference.log_prob(z), rtol=1e-5, atol=1e-5)


def test_one_component_is_a_normal():
    generator = torch.Generator().manual_seed(2)
    mixture = random_mixture((3, 1, 4), generator)
    z = torch.randn(3, 4, generator=generator)
    normal = distributions.Normal(mixture.mean[:, 0], mixture.log_std[:, 0].exp())
    torch.testing.assert_close(mixture.log_prob(z), normal.log_prob(z), rtol=1e-5, atol=1e-5)


def test_at_temperature_near_zero_a_sample_is_the_mean_of_the_likeliest_component():
    generator = torch.Generator().manual_seed(3)
    mixture = random_mixture((50, 5, 4), generator)
    uniform, normal = torch.rand(50, 4, generator=generator), torch.randn(50, 4, generator=generator)
    sample = mixture.sample(uniform, normal, 1e-8)
    mode = mixture.mean.gather(1, mixture.logits.argmax(1, keepdim=True)).squeeze(1)
    torch.testing.assert_close(sample, mode, rtol=0, atol=1e-3)


def test_samples_have_the_mean_and_spread_of_the_mixture():
    # 200,000 samples: 5 standard errors of a mean are 0.011 std; a false alarm has odds of about 1 in 10^6 a dimension.
    generator = torch.Generator().manual_seed(4)
    mixture = random_mixture((1, 5, 3), generator)
    many = Mixture(*(field.expand(200_000, -1, -1) for field in mixture))
    sample = many.sample(torch.rand(200_000, 3, generator=generator), torch.randn(200_000, 3, generator=generator), 1.0)
    mean, std = mixture.mean_and_std()
    assert ((sample.mean(0) - mean[0]).abs() < 5 * std[0] / math.sqrt(200_000)).all()
    torch.testing.assert_close(sample.std(0), std[0], rtol=0.02, atol=0)


def small_memory(**changes):
    shape = {"hidden": 16, "reward": "event"} | changes
    memory = LSTMConfig(**shape).build(latent=5, action=2)
    initialise(memory, torch.Generator().manual_seed(5))
    return memory


def test_m_is_built_again_from_what_it_says_of_itself():
    memory = small_memory(clock=9, done=False)
    again = memory_from_description(json.loads(json.dumps(memory.describe())))
    again.load_state_dict(memory.state_dict())
    assert (again.config, again.latent, again.action) == (memory.config, 5, 2)


def test_the_kind_of_m_is_the_lstm_if_none_is_named_and_another_is_refused():
    assert validate({"hidden": 4}, "doom.memory.model", MemoryConfig) == LSTMConfig(kind="lstm", hidden=4)
    with pytest.raises(ParamsError, match=r"doom.memory.model.*no such `kind`"):
        validate({"kind": "parrot", "hidden": 4}, "doom.memory.model", MemoryConfig)


def test_the_state_is_one_tensor_that_is_zero_where_an_episode_begins():
    memory = small_memory(hidden=8)
    assert memory.state_size == sum(memory.parts) == 16
    assert torch.equal(memory.initial_state(3), torch.zeros(3, 16))
    z, action = torch.randn(3, 2, 5), torch.rand(3, 2, 2)
    outputs, state = memory.observe(z, action, torch.zeros(3, 2, dtype=torch.bool), memory.initial_state(3))
    assert torch.equal(memory.outputs(state), outputs[:, -1])
    seen = {kind: select_features(kind, z[:, 0], memory, state) for kind in ("z", "zh", "zch")}
    assert [seen[kind].shape[1] for kind in seen] == [feature_size(kind, 5, memory) for kind in seen] == [5, 13, 21]
    assert torch.equal(seen["zh"][:, 5:], outputs[:, -1])
    assert torch.equal(seen["zch"][:, 13:], outputs[:, -1])


def test_a_dreamt_step_is_a_sample_of_what_the_forward_predicts():
    memory = small_memory()
    generator = torch.Generator().manual_seed(8)
    z, action, state = (torch.randn(3, size, generator=generator) for size in (5, 2, memory.state_size))
    uniform, normal = torch.rand(3, 5, generator=generator), torch.randn(3, 5, generator=generator)
    restart = torch.tensor([False, True, False])
    prediction, _, after = memory(z[:, None], action[:, None], restart[:, None], state)
    dreamt, also, told = memory.dream(z, action, restart, state, uniform, normal, 0.7)
    assert torch.equal(also, after)
    assert torch.equal(told.done, prediction.done[:, 0])
    assert torch.equal(dreamt, told.latent.sample(uniform, normal, 0.7))
    assert torch.allclose(dreamt, told.latent.sample(uniform, normal, torch.tensor([[0.7]])))  # as the ONNX export says it


def test_a_sequence_is_its_single_steps():
    memory = small_memory()
    generator = torch.Generator().manual_seed(6)
    z, action = torch.randn(3, 7, 5, generator=generator), torch.rand(3, 7, 2, generator=generator)
    restart = torch.zeros(3, 7, dtype=torch.bool)
    restart[1, 4] = True
    whole, hidden, last = memory(z, action, restart, memory.initial_state(3))
    state = memory.initial_state(3)
    for t in range(7):
        step, h, state = memory(z[:, t : t + 1], action[:, t : t + 1], restart[:, t : t + 1], state)
        torch.testing.assert_close(h[:, 0], hidden[:, t], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(step.done[:, 0], whole.done[:, t], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(state, last, rtol=1e-5, atol=1e-6)


def test_the_gradient_of_the_lstm_is_the_slope():
    generator = torch.Generator().manual_seed(0)
    lanes, steps, hidden = 3, 5, 2
    sizes = [(lanes, steps, 4 * hidden), (4 * hidden, hidden), (lanes, hidden), (lanes, hidden)]
    drive, weight, h, c = (torch.randn(size, generator=generator, dtype=torch.float64, requires_grad=True) for size in sizes)
    keep = (torch.rand(lanes, steps, 1, generator=generator) > 0.3).double()

    def steps_of(drive, weight, h, c):
        return Recurrence.apply(drive, keep, weight, h, c, torch.float64)

    assert torch.autograd.gradcheck(steps_of, (drive, weight, h, c))


def test_products_in_bfloat16_change_little_and_the_state_stays_single():
    memory, half = small_memory(), small_memory().to(torch.bfloat16)
    generator = torch.Generator().manual_seed(6)
    z, action = torch.randn(3, 7, 5, generator=generator), torch.rand(3, 7, 2, generator=generator)
    no = torch.zeros(3, 7, dtype=torch.bool)
    with torch.inference_mode():
        exact, hidden, _ = memory(z, action, no, memory.initial_state(3))
        near, also, state = half(z, action, no, half.initial_state(3))
    assert state.dtype == near.latent.mean.dtype == torch.float32
    assert 0 < (also - hidden).abs().max() < 0.03
    torch.testing.assert_close(near.latent.mean, exact.latent.mean, atol=0.05, rtol=0.05)


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_models_learn_with_products_in_either_precision(kind):
    memory, vision = small_memory(), Vision(VisionConfig(latent=4))
    initialise(vision, torch.Generator().manual_seed(0))
    optimiser = torch.optim.Adam([*memory.parameters(), *vision.parameters()], 3e-3)
    generator = torch.Generator().manual_seed(6)
    z, action = torch.randn(3, 8, 5, generator=generator), torch.rand(3, 7, 2, generator=generator)
    images, noise = torch.rand(4, 3, 64, 64, generator=generator), torch.randn(4, 4, generator=generator)
    no = torch.zeros(3, 7, dtype=torch.bool)
    losses = []
    with training_in(kind, torch.device("cpu")):
        for _ in range(20):
            optimiser.zero_grad()
            prediction, _, _ = memory(z[:, :-1], action, no, memory.initial_state(3))
            config = MemoryLossConfig(done_weight=1.0, end_weight=1.0, reward_weight=1.0)
            of_memory = memory_loss(prediction, z[:, 1:], action[..., 0], no, ~no, config).total
            of_vision = vision.loss(images, noise, VisionLossConfig(kl_tolerance=0.5, pixel_weight=2.0), images[0]).total
            assert of_memory.dtype == of_vision.dtype == torch.float32
            (of_memory + of_vision).backward()
            optimiser.step()
            losses.append((of_memory.item(), of_vision.item()))
    assert all(last < first for first, last in zip(losses[0], losses[-1], strict=True))


def test_products_in_bfloat16_are_of_the_weights_as_they_are_now():
    memory, vision = small_memory(), Vision(VisionConfig(latent=4))
    initialise(vision, torch.Generator().manual_seed(0))
    z, no = torch.ones(2, 3, 5), torch.zeros(2, 3, dtype=torch.bool)
    images = torch.full((2, 3, 64, 64), 0.5)

    def seen():
        prediction, hidden, _ = memory(z, z[..., :2], no, memory.initial_state(2))
        mean, log_variance = vision.encode(images)
        return [prediction.latent.mean, hidden, mean, log_variance, vision.decode(mean)]

    with training_in(torch.bfloat16, torch.device("cpu")):
        sum(each.sum() for each in seen()).backward()
        with torch.no_grad():
            for parameter in [*memory.parameters(), *vision.parameters()]:
                parameter.mul_(1.5)
        after = seen()
    for half, single in zip(after, seen(), strict=True):
        torch.testing.assert_close(half, single, rtol=0.1, atol=0.05)


def test_bfloat16_is_taken_where_the_processor_is_made_for_it(tmp_path, monkeypatch):
    cpu = torch.device("cpu")
    for flags, kind in (("fma avx2", torch.float32), ("avx512f avx512_bf16", torch.bfloat16), ("amx_bf16", torch.bfloat16)):
        (tmp_path / "cpuinfo").write_text(f"processor : 0\nflags\t\t: {flags}\nprocessor : 1\n")
        monkeypatch.setattr(precision, "cpu_flags", lambda: cpu_flags(tmp_path / "cpuinfo"))
        assert products_in("auto", cpu) == kind
        assert products_in("float32", cpu) == torch.float32
        assert products_in("bfloat16", cpu) == torch.bfloat16


def test_a_restart_forgets_everything_before_it():
    memory = small_memory()
    z, action = torch.randn(1, 4, 5), torch.rand(1, 4, 2)
    restart = torch.tensor([[False, False, True, False]])
    _, hidden, _ = memory(z, action, restart, torch.randn(1, 32))
    _, fresh, _ = memory(z[:, 2:], action[:, 2:], restart[:, 2:], memory.initial_state(1))
    torch.testing.assert_close(hidden[:, 2:], fresh, rtol=1e-5, atol=1e-6)


def test_the_lstm_is_torchs_lstm_with_the_forget_bias_of_one():
    memory = small_memory(done=False)
    reference = torch.nn.LSTM(7, 16, batch_first=True)
    # Gates here: input, cell, forget, output. In torch: input, forget, cell, output.
    order = torch.cat([torch.arange(16) + 16 * gate for gate in (0, 2, 1, 3)])
    with torch.no_grad():
        reference.weight_ih_l0.copy_(memory.input_weight[order])
        reference.weight_hh_l0.copy_(memory.hidden_weight[order])
        reference.bias_ih_l0.copy_(memory.bias[order])
        reference.bias_hh_l0.zero_()
        reference.bias_hh_l0[16:32] = 1
    z, action = torch.randn(2, 9, 5), torch.rand(2, 9, 2)
    hidden, _ = memory.observe(z, action, torch.zeros(2, 9, dtype=torch.bool), memory.initial_state(2))
    torch.testing.assert_close(hidden, reference(torch.cat([z, action], -1))[0], rtol=1e-5, atol=1e-6)


def test_the_end_of_an_episode_weighs_ten_times_and_has_no_next_latent():
    memory = small_memory()
    config = MemoryLossConfig(done_weight=3.0, end_weight=10.0, reward_weight=1.0)
    z, terminal = torch.randn(1, 2, 5), torch.tensor([[False, True]])
    prediction = memory.predict(torch.randn(1, 2, 16))
    valid = torch.ones(1, 2, dtype=torch.bool)
    loss = memory_loss(prediction, z, torch.zeros(1, 2), terminal, valid, config)
    first = -prediction.latent.log_prob(z)[0, 0].mean()
    torch.testing.assert_close(loss.latent, first, rtol=1e-5, atol=1e-6)
    alive, dead = prediction.done[0].sigmoid()
    expected = (-(1 - alive).log() - 10 * dead.log()) / 2
    torch.testing.assert_close(loss.done, expected, rtol=1e-5, atol=1e-6)
    of_reward = F.softplus(prediction.event).mean()  # no event came
    torch.testing.assert_close(loss.total, 5 * first + of_reward + 3 * expected, rtol=1e-5, atol=1e-5)


def test_the_reward_of_an_event_is_what_events_are_worth_times_their_probability():
    memory = small_memory(reward="event")
    reward = torch.tensor([-0.1, 3.5, -0.1, 2.5, -100.0])
    memory.learn_rewards(reward, torch.tensor([False, False, False, False, True]))
    torch.testing.assert_close(memory.rewards, torch.tensor([-0.1, 3.0, -100.0]))
    prediction = memory.predict(torch.randn(2, 3, 16))
    event, end = prediction.event.sigmoid(), prediction.done.sigmoid()
    torch.testing.assert_close(prediction.reward, (1 - end) * (3.0 * event - 0.1 * (1 - event)) - 100 * end)
    z, happened, none = torch.randn(2, 3, 5), torch.tensor([[-0.1, 7.0, -0.1], [3.0, -100.0, -0.1]]), torch.zeros(2, 3) > 1
    loss = memory_loss(
        prediction, z, happened, none, ~none, MemoryLossConfig(done_weight=1.0, end_weight=1.0, reward_weight=1.0)
    )
    expected = -torch.where(happened > 0, event.log(), (1 - event).log()).mean()
    torch.testing.assert_close(loss.reward, expected, rtol=1e-5, atol=1e-6)


def test_of_data_without_events_or_ends_rewards_are_the_mean():
    memory = small_memory(reward="event")
    memory.learn_rewards(torch.tensor([-0.1, -0.3]), torch.zeros(2, dtype=torch.bool))
    torch.testing.assert_close(memory.rewards, torch.full((3,), -0.2))


def test_the_reward_of_levels_is_their_mean_and_its_error_a_cross_entropy():
    memory = small_memory(reward="levels")
    memory.learn_rewards(torch.tensor([-1.0, -1.0, 96.0, float("nan")]), torch.zeros(4, dtype=torch.bool))
    assert memory.usual_reward == -1.0
    prediction = memory.predict(torch.randn(2, 3, 16))
    assert prediction.event is None
    weights = prediction.levels.logits.softmax(-1)
    torch.testing.assert_close(prediction.reward, (weights * VALUES).sum(-1))
    one = prediction.step(1)
    torch.testing.assert_close(one.reward, prediction.reward[:, 1])
    torch.testing.assert_close(one.levels.logits, prediction.levels.logits[:, 1])
    happened, none = torch.tensor([[0.0, 96.0, -6.0], [float("nan"), 0.0, 5e6]]), torch.zeros(2, 3) > 1
    loss = memory_loss(prediction, torch.randn(2, 3, 5), happened, none, ~none, MemoryLossConfig())
    error = -(two_hot(happened.nan_to_num()) * weights.log()).sum(-1)
    torch.testing.assert_close(loss.reward, error[happened.isfinite()].mean(), rtol=1e-5, atol=1e-6)
    assert memory_from_description(json.loads(json.dumps(memory.describe()))).config == memory.config


def test_a_step_between_episodes_counts_for_nothing():
    memory = small_memory()
    config = MemoryLossConfig(done_weight=1.0, end_weight=10.0, reward_weight=1.0)
    prediction = memory.predict(torch.randn(2, 3, 16))
    z, reward = torch.randn(2, 3, 5), torch.randn(2, 3)
    terminal, valid = torch.zeros(2, 3, dtype=torch.bool), torch.ones(2, 3, dtype=torch.bool)
    valid[0, 1] = False
    before = memory_loss(prediction, z, reward, terminal, valid, config)
    z[0, 1], reward[0, 1], terminal[0, 1] = 99, 99, True
    after = memory_loss(prediction, z, reward, terminal, valid, config)
    assert torch.equal(before.total, after.total)


def test_v_returns_images_of_the_right_shape_and_range_and_frames_round_trip():
    vision = Vision(VisionConfig(latent=8))
    frames = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)
    assert torch.equal(to_frames(to_images(frames)), frames)
    mean, log_variance = vision.encode(to_images(frames))
    image = vision.decode(mean)
    assert mean.shape == log_variance.shape == (2, 8)
    assert image.shape == (2, 3, 64, 64)
    assert 0 <= image.min() <= image.max() <= 1


def test_the_first_deconvolution_as_a_product_is_the_deconvolution():
    vision = Vision(VisionConfig(latent=8))
    z = torch.randn(3, 8)
    reference = torch.sigmoid(vision.decoder(vision.first(vision.expand(z)[..., None, None])))
    torch.testing.assert_close(vision.decode(z), reference, rtol=1e-4, atol=1e-5)


def test_the_kl_of_v_is_that_of_torch_distributions_and_small_kl_is_free():
    vision = Vision(VisionConfig(latent=8))
    images = torch.rand(4, 3, 64, 64)
    mean, log_variance = vision.encode(images)
    normal = distributions.Normal(mean, (0.5 * log_variance).exp())
    reference = distributions.kl_divergence(normal, distributions.Normal(0.0, 1.0)).sum(1).mean()
    zeros = torch.zeros(3, 64, 64)
    loss = vision.loss(images, torch.randn(4, 8), VisionLossConfig(kl_tolerance=0.5, pixel_weight=0.0), zeros)
    torch.testing.assert_close(loss.kl, reference, rtol=1e-4, atol=1e-5)
    assert reference < 0.5 * 8
    torch.testing.assert_close(loss.total, loss.reconstruction + 0.5 * 8)


@pytest.mark.parametrize(("hidden", "bias"), [(0, True), (0, False), (40, True)])
def test_a_stack_of_controllers_acts_as_each_alone(hidden, bias):
    config = ControllerConfig(features="z", hidden=hidden, bias=bias)
    generator = torch.Generator().manual_seed(7)
    parameters = torch.randn(3, parameter_count(config, 6, 2), generator=generator)
    features = torch.randn(5, 6, generator=generator)
    candidates = torch.tensor([2, 0, 1, 2, 0])
    stack = act(features, Controllers(config, parameters, 6, 2).weights(candidates))
    assert stack.abs().max() <= 1
    for lane, candidate in enumerate(candidates.tolist()):
        one = Controllers(config, parameters[candidate : candidate + 1], 6, 2)
        expected = act(features[lane : lane + 1], one.alone)
        torch.testing.assert_close(stack[lane : lane + 1], expected)


def test_a_linear_controller_is_a_matrix_product():
    config = ControllerConfig(features="zh", hidden=0, bias=True)
    parameters = torch.randn(1, parameter_count(config, 4, 3))
    features = torch.randn(2, 4)
    weight, bias = parameters[0, :12].view(3, 4), parameters[0, 12:]
    expected = np.tanh(features.numpy() @ weight.numpy().T + bias.numpy())
    actual = act(features, Controllers(config, parameters, 4, 3).alone)
    np.testing.assert_allclose(actual.numpy(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_the_clock_counts_the_steps_of_an_episode_and_is_not_learned(kind):
    config = LSTMConfig(hidden=16, clock=100)
    memory = new_memory(config, latent=5, action=2, seed=0)
    generator = torch.Generator().manual_seed(1)
    z, action = torch.randn(2, 70, 5, generator=generator), torch.rand(2, 70, 2, generator=generator)
    restart = torch.zeros(2, 70, dtype=torch.bool)
    restart[:, 0] = restart[1, 30] = True
    optimiser = torch.optim.Adam(memory.parameters(), 1e-2)
    with training_in(kind, torch.device("cpu")):
        for _ in range(3):
            prediction, _, state = memory(z, action, restart, memory.initial_state(2))
            torch.testing.assert_close(state[:, -1], torch.tensor([0.7, 0.4]), rtol=5e-3, atol=0)
            optimiser.zero_grad()
            (prediction.latent.mean.square().sum() + prediction.done.square().sum()).backward()
            optimiser.step()
        assert memory.head.weight.grad[:, -1].abs().max() > 0
        _, state = memory.observe(z[:, :3], action[:, :3], restart[:, 1:4], memory.initial_state(2, torch.tensor([20, 30])))
    torch.testing.assert_close(state[:, -1], torch.tensor([0.23, 0.33]), rtol=5e-3, atol=0)


def test_m_reads_which_option_of_a_choice_is_taken_and_not_by_how_much():
    memory = new_memory(LSTMConfig(hidden=8, done=False), latent=4, action=5, seed=0, choices=(3, 2))
    z, restart, state = torch.randn(2, 6, 4), torch.zeros(2, 6, dtype=torch.bool), memory.initial_state(2)
    action = torch.rand(2, 6, 5) * 2 - 1
    taken = memory.taken(action)
    assert taken.sum(-1).eq(2).all()
    assert taken[..., :3].argmax(-1).equal(action[..., :3].argmax(-1))
    assert taken[..., 3:].argmax(-1).equal(action[..., 3:].argmax(-1))
    read = memory.observe(z, action, restart, state)[0]
    torch.testing.assert_close(memory.observe(z, taken, restart, state)[0], read, rtol=0, atol=0)
    other = action.clone()
    other[0, 3, :3] = action[0, 3, [1, 2, 0]]
    assert not torch.equal(memory.observe(z, other, restart, state)[0][0], read[0])
    again = memory_from_description(memory.describe())
    assert again.choices == (3, 2)
    with pytest.raises(ValueError, match="choices of 6 options"):
        memory_from_description({**memory.describe(), "choices": [3, 3]})
