"""The benchmark against AttentionAgent: its forward pass, what is drawn over pictures, and that it asks for weights."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import attention_agent as bench
import attention_games as games
import attention_peer as peer

SIZES = {1: 3633, 3: 3667}  # parameters, by actions


@pytest.fixture
def params() -> np.ndarray:
    return np.random.default_rng(0).normal(0, 0.3, SIZES[3]).astype(np.float32)


def test_patches_are_row_by_row_and_each_is_row_column_channel() -> None:
    image = np.random.default_rng(1).random((96, 96, 3), np.float32)
    cut = peer.patches(image)
    assert cut.shape == (529, 147)
    np.testing.assert_array_equal(cut[2 * 23 + 5], image[8:15, 20:27].ravel())


def test_places_are_centres_with_the_most_important_patch_first() -> None:
    importance = np.zeros(529)
    importance[[0, 23 * 22 + 22, 2 * 23 + 5]] = 1, 3, 2
    seen = peer.places(importance)
    assert seen.shape == (20,)
    np.testing.assert_allclose(seen[:6] * 96, [91, 91, 11, 23, 3, 3])


def test_attention_is_a_softmax_over_the_patches_that_are_looked_at(params: np.ndarray) -> None:
    agent, image = peer.AttentionAgent(params, 3), np.random.default_rng(2).random((96, 96, 3), np.float32)
    query_bias, query, key_bias, key = np.split(params[:1184], [4, 592, 596])
    seen = peer.patches(image)
    queries, keys = seen @ query.reshape(4, 147).T + query_bias, seen @ key.reshape(4, 147).T + key_bias
    weights = np.exp(queries @ keys.T / 147**0.5)
    expected = (weights / weights.sum(1, keepdims=True)).sum(0)
    np.testing.assert_allclose(agent.importance(image), expected, rtol=1e-3)
    assert agent.importance(image).sum() == pytest.approx(529, rel=1e-4)


def test_the_controller_is_torchs_lstm_and_starts_from_zero(params: np.ndarray) -> None:
    agent, cell, out = peer.AttentionAgent(params, 3), torch.nn.LSTMCell(20, 16), torch.nn.Linear(16, 3)
    rest = torch.from_numpy(params[1184:])
    layers = [cell.bias_hh, cell.bias_ih, cell.weight_hh, cell.weight_ih, out.bias, out.weight]
    with torch.no_grad():
        for layer, part in zip(layers, rest.split([layer.numel() for layer in layers]), strict=True):
            layer.copy_(part.view_as(layer))
    frames = np.random.default_rng(3).integers(0, 256, (3, 96, 96, 3), np.uint8)
    state, acted = None, []
    for frame in frames:
        acted.append(agent.act(frame))
        seen = torch.from_numpy(peer.places(agent.importance(frame.astype(np.float32) / 255)))
        state = cell(seen[None], state)
        np.testing.assert_allclose(acted[-1], torch.tanh(out(state[0]))[0].detach().numpy(), atol=1e-5)
    assert acted[0].shape == (3,)
    agent.start()
    np.testing.assert_array_equal(agent.act(frames[0]), acted[0])


def test_a_large_picture_is_shrunk_and_a_vector_of_another_size_is_refused(params: np.ndarray) -> None:
    agent = peer.AttentionAgent(params[: SIZES[1]], 1)
    assert agent.act(np.zeros((480, 640, 3), np.uint8)).shape == (1,)
    with pytest.raises(ValueError, match="3633 parameters"):
        peer.AttentionAgent(params, 1)


def test_a_variation_draws_over_a_part_of_the_picture() -> None:
    for variation, shape in (("text", (480, 640, 3)), ("text", (120, 160, 3)), ("bars", (96, 96, 3)), ("blob", (96, 96, 3))):
        plain = np.full(shape, 90, np.uint8)
        changed = (games.varied(plain, variation) != plain).any(2)
        assert 0 < changed.mean() < 0.2, variation
    assert games.varied(plain, "wall") is plain


def test_episodes_are_played_once_and_compared_in_pairs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def play(seeds: list[int]) -> bench.Scores:
        asked.append(seeds)
        yield from ((seed, 10.0 * seed + len(asked), 5) for seed in seeds)

    asked: list[list[int]] = []
    for seeds, agent in (([0, 1], "ours"), ([0, 1, 2], "ours"), ([0, 1, 2], "attention")):
        table = bench.Table(tmp_path / "scores.csv")
        table.play(("doom", "plain", "test", agent), seeds, play)
    assert asked == [[0, 1], [2], [0, 1, 2]]
    bench.compare(bench.Table(tmp_path / "scores.csv"), "doom", "plain", "test", [0, 1, 2])
    assert "| doom | plain | 3 | 11.3 ± 6.1 | 13.0 ± 5.8 | -1.7 ± 0.3 |" in capsys.readouterr().out


def test_without_weights_it_says_what_it_needs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["attention_agent.py"])
    bench.main()
    assert capsys.readouterr().out.count("\n") == 1
