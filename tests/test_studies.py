"""Studies: agents that differ in their seed alone are one bar."""

import numpy as np
import pytest

from worldmodels.report.comparisons import study_bars
from worldmodels.report.verdict import variants


def score(controller, seed, mean, stderr=5.0, world_model="carracing-1"):
    real = {"mean": mean, "std": 50.0, "stderr": stderr, "n": 100}
    return {"controller": controller, "controller_seed": seed, "world_model": world_model, "study": "s", "real": real}


def test_the_error_of_a_variant_comes_from_its_seeds_and_of_a_single_one_from_its_episodes():
    found = variants([score("a", 0, 100.0), score("b", 0, 50.0), score("a", 1, 200.0)])
    assert [(v.name, v.mean, v.seeds) for v in found] == [("a", 150.0, [100.0, 200.0]), ("b", 50.0, [50.0])]
    assert found[0].stderr == pytest.approx(50.0)
    assert found[1].stderr == 5.0


def test_the_same_controller_on_another_world_model_is_another_variant_and_says_so():
    found = variants([score("a", 0, 100.0), score("a", 0, 50.0, world_model="carracing-2")])
    assert [(v.name, v.mean) for v in found] == [("a, carracing-1", 100.0), ("a, carracing-2", 50.0)]


def test_a_study_is_a_picture_that_shows_a_seed_more():
    scores = [score("a", 0, 100.0), score("b", 0, 50.0), score("a", 1, 200.0)]
    image = study_bars("s", variants(scores))
    assert image.dtype == np.uint8
    assert image.std() > 10
    fewer = study_bars("s", variants(scores[:2]))
    assert image.shape == fewer.shape
    assert (image != fewer).any()
