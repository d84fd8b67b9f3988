"""V that learns beside its pictures what is paid: a small thing that pays is in its latents, though it is few pixels."""

import numpy as np
import pytest
import torch

from worldmodels.learning.fit import OptimiserConfig
from worldmodels.shapes import Episode
from worldmodels.storage.episodes import EpisodeWriter, FrameReader
from worldmodels.storage.files import write_json
from worldmodels.vision.joint import JointConfig
from worldmodels.vision.model import VisionConfig, to_images
from worldmodels.vision.training import VisionTraining, new_vision, train_vision


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Episodes of frames that are light or dark at random; a spot of 5 x 5 pixels on their right pays."""
    folder, random = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    write_json(folder / "none.json", {"shards": []})
    writer = EpisodeWriter(folder / "episodes", actions=1)
    for seed in range(12):
        right = random.random(65) < 0.5
        frames = np.repeat(random.integers(0, 200, (65, 4, 4, 3), np.uint8), 16, 1).repeat(16, 2)
        for frame, at in zip(frames, np.where(right, 44, 14), strict=True):
            frame[30:35, at : at + 5] = 255
        writer.write(Episode(frames, np.zeros((64, 1), np.float32), right[:-1].astype(np.float32), False, seed), "random")
    writer.finish(folder / "data.json", folder / "none.json")
    return FrameReader(folder / "data.json")


def foretold(data, joint):
    """Return the share of the rewards' variance that a line through V's latents tells, and V's curve."""
    optimiser = OptimiserConfig(updates=120, batch=32, warm_updates=0, learning_rate=1e-3)
    config = VisionTraining(model=VisionConfig(latent=8), optimiser=optimiser, joint=joint)
    model = new_vision(config.model, 0)
    curve = train_vision(model, data, config, seed=0, updates=range(120), observe=lambda row: None)
    rows = [data.rows(chunk) for chunk in range(len(data))]
    frames, reward = (np.concatenate([row[name] for row in rows if len(row["first"]) > 1]) for name in ("frame", "reward"))
    with torch.no_grad():
        z = model.encode(to_images(torch.from_numpy(frames)))[0].numpy()
    x = np.column_stack([z, np.ones(len(z))])
    half = len(x) // 2
    says = x[half:] @ np.linalg.lstsq(x[:half], reward[:half], rcond=None)[0]
    return 1 - np.var(reward[half:] - says) / np.var(reward[half:]), curve


def test_latents_tell_what_is_paid_if_v_learned_it_beside_its_pictures(data):
    plain, _ = foretold(data, None)
    joint, curve = foretold(data, JointConfig(weight=1000.0))
    assert plain < 0.3
    assert joint > 0.7
    trained = [row["event"] for row in curve if row["split"] == "train"]
    assert trained[-1] < 0.3 < trained[0]


def test_facts_are_rows_without_their_frames(data):
    facts, chunk = data.facts(), data.rows(2)
    mine = facts["chunk"] == 2
    assert "frame" not in facts
    assert all((facts[name][mine] == chunk[name]).all() for name in ("action", "reward", "terminal", "first"))
    assert len(facts["first"]) == data.total
