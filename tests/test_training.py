"""Training: the same seed gives the same bytes, losses fall, data survive the disk, damage is named."""

import json
from typing import get_args

import numpy as np
import pytest
import torch

from worldmodels.compute.precision import training_in
from worldmodels.errors import ArtifactError, WorldModelsError
from worldmodels.learning.fit import OptimiserConfig, fit, learning_rate
from worldmodels.memory.lstm import LSTMConfig
from worldmodels.memory.make import new_memory
from worldmodels.memory.prediction import MemoryLossConfig
from worldmodels.memory.training import MemoryTraining, train_memory
from worldmodels.seeds import Purpose, episode_seeds, purpose_of
from worldmodels.shapes import Episode
from worldmodels.storage.episodes import EpisodeWriter, FrameReader
from worldmodels.storage.files import write_bytes, write_json
from worldmodels.storage.weights import load_model, load_tensors, save_model
from worldmodels.vision.encode import encode_rows
from worldmodels.vision.model import Vision, VisionConfig, VisionLossConfig, to_images
from worldmodels.vision.training import VisionTraining, new_vision, novelty, train_vision


def quiet(row):
    """Observe nothing."""


def optimiser(**changes):
    values = {
        "updates": 30,
        "warm_updates": 10,
        "batch": 8,
        "learning_rate": 1e-3,
        "warm_learning_rate": 1e-3,
        "final_learning_rate": 1e-3,
    }
    return OptimiserConfig(**(values | changes))


def episode(seed, steps, terminal=True):
    random = np.random.default_rng(seed)
    frames = np.zeros((steps + 1, 64, 64, 3), np.uint8)
    for t in range(steps + 1):
        frames[t, t % 60 : t % 60 + 4, seed % 60 : seed % 60 + 4] = 255
    return Episode(
        frames,
        random.uniform(-1, 1, (steps, 2)).astype(np.float32),
        random.uniform(size=steps).astype(np.float32),
        terminal,
        seed,
    )


@pytest.fixture
def manifest(tmp_path):
    """Two iterations of data: 3 episodes, then 2."""
    none = tmp_path / "none.json"
    write_json(none, {"shards": []})
    previous = none
    for name, seeds in (("one", [1, 2, 3]), ("two", [4, 5])):
        writer = EpisodeWriter(tmp_path / name / "episodes", actions=2, shard_frames=150)
        for seed in seeds:
            writer.write(episode(seed, 100 + seed, terminal=seed != 2), "random")
        writer.finish(tmp_path / name / "data.json", previous)
        previous = tmp_path / name / "data.json"
    return previous


def test_the_learning_rate_falls_by_a_cosine_or_by_a_share_of_the_way():
    cosine = optimiser(updates=100, learning_rate=1e-3, final_learning_rate=1e-4)
    assert [learning_rate(cosine, update) for update in (0, 50, 100)] == pytest.approx([1e-3, 5.5e-4, 1e-4])
    paper = optimiser(updates=30_000, learning_rate=1e-3, final_learning_rate=1e-5, decay=0.99999)
    for update in (0, 1, 30_000):
        assert learning_rate(paper, update) == (1e-3 - 1e-5) * 0.99999**update + 1e-5  # as its released code has it


@pytest.mark.parametrize("budget", [{}, {"updates": 3, "passes": 1}])
def test_a_budget_is_in_updates_or_in_passes(budget):
    with pytest.raises(ValueError, match="either updates or passes"):
        OptimiserConfig(batch=100, **budget)


def test_passes_are_whole_batches_and_are_for_a_model_that_begins():
    config = OptimiserConfig(passes=400, batch=100, warm_updates=7)
    assert config.counted(399.9).updates == 400 * 3
    assert config.counted(5).updates == 400
    assert config.warm().counted(399.9).updates == 7
    assert optimiser(updates=30).counted(399.9).updates == 30


def test_episodes_come_back_from_disk_as_they_were(manifest):
    reader = FrameReader(manifest)
    chunks = [reader.rows(i) for i in range(len(reader))]
    rows = {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}
    start = 0
    for seed in (1, 2, 3, 4, 5):
        expected, count = episode(seed, 100 + seed, terminal=seed != 2), 101 + seed
        part = {name: column[start : start + count] for name, column in rows.items()}
        np.testing.assert_array_equal(part["frame"], expected.frames)
        np.testing.assert_array_equal(part["action"][:-1], expected.actions)
        np.testing.assert_array_equal(part["reward"][:-1], expected.rewards)
        assert part["first"].tolist() == [True] + [False] * (count - 1)
        assert part["terminal"].tolist() == [False] * (count - 2) + [expected.terminal, False]
        start += count
    assert start == len(rows["frame"])
    np.testing.assert_array_equal(reader.frames([3, 0]), np.concatenate([chunks[3]["frame"], chunks[0]["frame"]]))


def test_the_same_episodes_give_the_same_bytes(tmp_path):
    write_json(tmp_path / "none.json", {"shards": []})
    contents = []
    for name in ("a", "b"):
        writer = EpisodeWriter(tmp_path / name, actions=2)
        writer.write(episode(1, 50), "random")
        writer.finish(tmp_path / f"{name}.json", tmp_path / "none.json")
        contents.append([path.read_bytes() for path in sorted((tmp_path / name).iterdir())])
    assert contents[0] == contents[1]


@pytest.mark.parametrize("damage", ["truncated", "flipped", "missing"])
def test_a_damaged_shard_is_named_with_the_command_that_makes_it_again(manifest, damage):
    shard = next((manifest.parent / "episodes").glob("*.arrow"))
    content = bytearray(shard.read_bytes())
    if damage == "truncated":
        shard.write_bytes(content[: len(content) // 2])
    elif damage == "flipped":
        content[len(content) // 2] ^= 1
        shard.write_bytes(content)
    else:
        shard.unlink()
    with pytest.raises(ArtifactError, match=shard.name):
        FrameReader(manifest)


def test_weights_come_back_and_damage_is_named(tmp_path):
    model = new_vision(VisionConfig(latent=4), seed=1)
    path = tmp_path / "artifacts/world_models/doom-1/vision.safetensors"
    save_model(path, model)
    first = path.read_bytes()
    save_model(path, model)
    assert path.read_bytes() == first
    again = load_model(path, Vision.from_description)
    for name, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])
    for content in (first[:1000], b"", b"\x80\x04K\x01."):
        path.write_bytes(content)
        with pytest.raises(ArtifactError, match="dvc repro vision@doom-1"):
            load_tensors(path)


def test_an_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_bytes(path, b"old")

    def full_disk(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(OSError, match="No space"):
        write_bytes(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def vision_training(**changes):
    return VisionTraining(
        model=VisionConfig(latent=4),
        loss=VisionLossConfig(kl_tolerance=0.5, pixel_weight=5.0),
        optimiser=optimiser(**changes),
        refresh=0.0,
    )


def test_v_learns_and_the_same_seed_gives_the_same_weights(manifest):
    def train(seed):
        model = new_vision(VisionConfig(latent=4), seed)
        config = vision_training()
        return model, train_vision(model, FrameReader(manifest), config, seed=seed, updates=range(30), observe=quiet)

    model, curve = train(1)
    again, _ = train(1)
    other, _ = train(2)
    held_out = [row["reconstruction"] for row in curve if row["split"] == "validation"]
    assert held_out[-1] < 0.7 * held_out[0]
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    assert not torch.equal(model.mean.weight, other.mean.weight)


def test_v_with_a_background_begins_at_the_mean_image_and_keeps_it(manifest, tmp_path):
    config = vision_training(updates=1, batch=2).model_copy(update={"model": VisionConfig(latent=4, background=True)})
    model, reader = new_vision(config.model, 1), FrameReader(manifest)
    plain = new_vision(VisionConfig(latent=4), 1)
    first, *_ = train_vision(model, reader, config, seed=1, updates=range(1), observe=quiet)
    first_of_plain, *_ = train_vision(
        plain, reader, vision_training(updates=1, batch=2), seed=1, updates=range(1), observe=quiet
    )
    assert first["reconstruction"] < 0.5 * first_of_plain["reconstruction"]
    images = to_images(torch.from_numpy(reader.frames(list(range(len(reader))))))
    torch.testing.assert_close(torch.sigmoid(model.background), images.mean(0).clamp(0.01, 0.99), atol=0.1, rtol=0)
    save_model(tmp_path / "vision", model)
    kept = load_model(tmp_path / "vision", Vision.from_description)
    train_vision(kept, reader, config, seed=1, updates=range(1), observe=quiet)
    assert torch.equal(kept.background, model.background)
    assert plain.describe() == {"config": {"latent": 4}}  # as before there was a background


def test_v_that_is_not_trained_on_stays_as_it_is_and_is_still_judged(manifest):
    model = new_vision(VisionConfig(latent=4), 1)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    config = vision_training()
    config = config.model_copy(update={"optimiser": config.optimiser.model_copy(update={"updates": 0})})
    curve = train_vision(model, FrameReader(manifest), config, seed=1, updates=range(0), observe=quiet)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert [(row["update"], row["split"]) for row in curve] == [(0, "validation")]
    assert curve[0]["reconstruction"] > 0


def test_frames_like_the_earlier_ones_are_no_news_and_others_are(tmp_path):
    random = np.random.default_rng(0)
    write_json(tmp_path / "none.json", {"shards": []})
    writer = EpisodeWriter(tmp_path / "a", actions=1, shard_frames=100)
    grey = [random.integers(100, 150, (150, 64, 64, 3), np.uint8) for _ in range(4)]  # as an untrained V paints
    bright = random.integers(200, 255, (150, 64, 64, 3), np.uint8)
    for seed, frames in enumerate([*grey, bright]):
        writer.write(Episode(frames, np.zeros((149, 1), np.float32), np.ones(149, np.float32), True, seed), "x")
    writer.finish(tmp_path / "data.json", tmp_path / "none.json")
    reader, model = FrameReader(tmp_path / "data.json"), new_vision(VisionConfig(latent=4), 1).eval()
    chunks = len(reader) // 5
    both = reader.chunks
    reader.chunks = both[: 4 * chunks]
    assert novelty(model, reader, 2 * chunks) == pytest.approx(1.0, abs=0.05)
    assert novelty(model, reader, 4 * chunks) == 1  # nothing was collected
    reader.chunks = both
    assert novelty(model, reader, 4 * chunks) > 1.3


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_latents_of_frames_that_were_encoded_are_taken_over(manifest, kind):
    reader, model = FrameReader(manifest), new_vision(VisionConfig(latent=4), 1).eval()
    with training_in(kind, torch.device("cpu")):
        whole = encode_rows(model, reader, range(len(reader)))
    old = len(reader) // 2
    count = sum(len(reader.frames([chunk])) for chunk in range(old))
    known = {name: column[:count].clone() for name, column in whole.items()}
    known["mean"][0] = 7.0  # taken over, not computed
    with training_in(kind, torch.device("cpu")):
        again = encode_rows(model, reader, range(old, len(reader)), known)
    assert again["mean"][0].tolist() == [7.0] * 4
    assert all(torch.equal(again[name][1:], whole[name][1:]) for name in whole)


def test_encoding_gives_one_row_a_frame(manifest):
    reader = FrameReader(manifest)
    rows = encode_rows(new_vision(VisionConfig(latent=4), 1).eval(), reader, range(len(reader)))
    assert {name: tuple(column.shape) for name, column in rows.items()} == {
        "mean": (520, 4),
        "log_variance": (520, 4),
        "action": (520, 2),
        "reward": (520,),
        "terminal": (520,),
        "first": (520,),
    }


def test_m_learns_a_regular_world_and_the_same_seed_gives_the_same_weights():
    time = torch.arange(600)
    rows = {
        "mean": 3 * torch.sin(time[:, None] * torch.tensor([0.1, 0.2, 0.3, 0.4])),
        "log_variance": torch.full((600, 4), -6.0),
        "action": torch.zeros(600, 2),
        "reward": torch.ones(600),
        "terminal": time % 100 == 98,
        "first": time % 100 == 0,
    }
    shape = LSTMConfig(hidden=16, reward="event")
    config = MemoryTraining(
        model=shape,
        loss=MemoryLossConfig(done_weight=1.0, end_weight=10.0, reward_weight=1.0),
        optimiser=optimiser(learning_rate=1e-2, updates=40),
        sequence=16,
    )

    def train():
        model = new_memory(shape, 4, 2, 1)
        return model, train_memory(model, rows, config, seed=1, updates=range(40), observe=quiet)

    model, curve = train()
    again, _ = train()
    held_out = [row["latent"] for row in curve if row["split"] == "validation"]
    assert held_out[-1] < held_out[0] - 0.3, "nats per dimension"
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


def test_m_learns_what_steps_pay_that_pay_more_or_less_than_others():
    random = torch.Generator().manual_seed(3)
    chosen = torch.randint(3, (2000,), generator=random)
    rows = {
        "mean": torch.randn(2000, 4, generator=random),
        "log_variance": torch.full((2000, 4), -6.0),
        "action": torch.nn.functional.one_hot(chosen, 3).float(),
        "reward": torch.tensor([-1.0, -6.0, 96.0])[chosen],
        "terminal": torch.zeros(2000, dtype=torch.bool),
        "first": torch.arange(2000) % 100 == 0,
    }
    config = MemoryTraining(
        model=LSTMConfig(hidden=16, reward="levels", done=False),
        loss=MemoryLossConfig(reward_weight=10.0),
        optimiser=optimiser(learning_rate=1e-2, updates=300),
        sequence=16,
    )
    curve = train_memory(new_memory(config.model, 4, 3, 1), rows, config, seed=1, updates=range(300), observe=quiet)
    assert curve[-1]["reward_r2"] > 0.99


def test_too_little_data_for_m_is_said_plainly():
    rows = {"first": torch.zeros(10, dtype=torch.bool), "mean": torch.zeros(10, 4)}
    config = MemoryTraining(
        model=LSTMConfig(hidden=4, done=False),
        loss=MemoryLossConfig(done_weight=1.0, end_weight=1.0, reward_weight=1.0),
        optimiser=optimiser(),
        sequence=64,
    )
    with pytest.raises(WorldModelsError, match="collect more"):
        train_memory(new_memory(config.model, 4, 2, 1), rows, config, seed=1, updates=range(1), observe=quiet)


def test_a_batch_that_would_hold_a_frame_twice_is_refused(manifest):
    config, reader = vision_training(), FrameReader(manifest)
    config = config.model_copy(update={"optimiser": optimiser(batch=reader.total + 1)})
    with pytest.raises(WorldModelsError, match=f"there are {reader.total} frames: lower it"):
        train_vision(new_vision(config.model, 1), reader, config, seed=1, updates=range(1), observe=quiet)
    rows = {"first": torch.zeros(1000, dtype=torch.bool), "mean": torch.zeros(1000, 4)}
    memory = MemoryTraining(model=LSTMConfig(hidden=4, done=False), optimiser=optimiser(batch=60), sequence=16)
    with pytest.raises(WorldModelsError, match="takes 960 frames, and there are 950 to learn from"):
        train_memory(new_memory(memory.model, 4, 2, 1), rows, memory, seed=1, updates=range(1), observe=quiet)


def test_a_loss_that_is_not_a_number_stops_with_what_to_lower():
    model = torch.nn.Linear(1, 1)

    def loss(update):
        return {"loss": model(torch.ones(1, 1)).sum() * (float("nan") if update == 3 else 1.0)}

    with pytest.raises(WorldModelsError, match=r"update 3 .*learning_rate"):
        fit(model, loss, optimiser(), updates=range(30), observe=quiet, validate=dict, clip=1.0)


def test_no_seed_serves_two_purposes():
    seen = {}
    for purpose in get_args(Purpose):
        for stream in ("", "0/doom-1", "1/doom-2"):
            for seed in episode_seeds(purpose, 500, stream=stream, start=2**27 - 250):
                assert seen.setdefault(seed, purpose) == purpose
                assert 0 <= seed < 2**31
                assert purpose_of(seed) == purpose


def test_a_manifest_says_what_is_in_the_data(manifest):
    summary = json.loads(manifest.read_text())
    assert summary["episodes"] == 2
    assert summary["frames"] == 105 + 106
    assert summary["all_frames"] == 520
    assert len(summary["shards"]) == 3
