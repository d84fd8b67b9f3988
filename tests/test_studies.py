"""Trials: what they change is checked; what they found is drawn; the real stage is in test_pipeline."""

import json

import numpy as np
import pytest
import yaml
from tiny import ROOT, tiny_params
from worldmodels.training.trial import steps_played, trial_training

from worldmodels.cli.project import load_project
from worldmodels.errors import ArtifactError, ParamsError
from worldmodels.report.comparisons import study_bars
from worldmodels.report.studies import read_trial, study_cells, trial_table, variants
from worldmodels.storage.layout import Trial, command_for


def written(folder, trials):
    path = folder / "params.yaml"
    path.write_text(yaml.safe_dump(tiny_params() | {"trials": trials}))
    return path


def entry(**changes):
    plain = yaml.safe_load((ROOT / "presets" / "quick.yaml").read_text())["trials"]["full-0"]
    return plain | changes


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"of": "carracing-9"}, "carracing-9"),
        ({"of": "doom-1"}, "is no iteration of 'carracing'"),
        ({"agent": "doom-1"}, "neither carracing-1 nor trials/KEY of another trial"),
        ({"agent": "trials/full-0"}, "neither carracing-1 nor trials/KEY of another trial"),
        ({"controller": {"dream": {"generation": 0}}}, "trials.full-0.controller.dream.generation"),
        ({"controller": {"evolution": {"sigma": -1.0}}}, "trials.full-0.controller.evolution.sigma"),
        ({"controller": {"evolution": {"seed": 1}}}, "take this one out"),
        ({"memory": "untrained", "controller": {"dream": {"generations": 3}}}, "never trained"),
        ({"study": "two words"}, "trials.full-0.study"),
        (
            {
                "memory": "untrained",
                "controller": {name: {"generations": n} for name, n in (("dream", 0), ("ppo", 0), ("gradient", 1))},
            },
            "never trained",
        ),
    ],
)
def test_a_trial_that_cannot_be_is_refused_before_anything_runs(tmp_path, changes, said):
    with pytest.raises(ParamsError, match=said.replace(".", r"\.")):
        load_project(written(tmp_path, {"full-0": entry(**changes)}))


def test_a_trial_is_the_chain_s_search_but_for_what_it_changes(tmp_path):
    project = load_project(written(tmp_path, {"full-3": entry(seed=3)}))
    section = tiny_params()["carracing"]["controller"]
    changed = section["evolution"] | {"seed": 3}
    training = trial_training(section, project.trials["full-3"], "full-3")
    assert training.evolution.model_dump() == changed
    assert training.real.model_dump() == section["real"] | {"generations": 3, "limit": 100}
    assert training.selection.model_dump() == section["selection"]


@pytest.mark.parametrize(("world", "expected"), [("dream", {"dream": 130, "real": 10}), ("real", {"dream": 30, "real": 110})])
def test_steps_of_ppo_count_where_it_played(tmp_path, world, expected):
    project = load_project(written(tmp_path, {"full-3": entry(seed=3)}))
    training = trial_training(tiny_params()["carracing"]["controller"], project.trials["full-3"], "full-3")
    training = training.model_copy(update={"ppo": training.ppo.model_copy(update={"world": world})})
    phases = {"dream": 30, "real": 10, "ppo": 100}
    curve = [{"phase": phase, "steps": steps} for phase, steps in phases.items()] + [{"phase": "selection", "mean": 1.0}]
    assert steps_played(curve, training) == expected


def trial(variant, seed, mean, stderr=5.0):
    real = {"mean": mean, "std": 50.0, "stderr": stderr, "n": 100}
    steps = {"dream": 0, "real": 32_000}
    told = {"of": "carracing-1", "parameters": 867, "rules": "paper-carracing", "backend": "envpool", "preset": "tiny"}
    return {"key": f"{variant}-{seed}", "study": "s", "variant": variant, "seed": seed, "steps": steps, "real": real, **told}


def test_the_error_of_a_variant_comes_from_its_seeds_and_of_a_single_one_from_its_episodes():
    found = variants([trial("a", 0, 100.0), trial("b", 0, 50.0), trial("a", 1, 200.0)])
    assert [(v.name, v.mean, v.seeds) for v in found] == [("a", 150.0, [100.0, 200.0]), ("b", 50.0, [50.0])]
    assert found[0].stderr == pytest.approx(50.0)
    assert found[1].stderr == 5.0


def test_a_study_is_a_table_and_a_picture():
    trials = [trial("a", 0, 100.0), trial("b", 0, 50.0), trial("a", 1, 200.0)]
    assert list(trial_table(trials)["real_steps"]) == [32_000] * 3
    assert study_cells(trials)[0][:5] == ("a", "2", "150 ± 50", "100, 200", "100")
    image = study_bars("s", variants(trials))
    assert image.dtype == np.uint8
    assert image.std() > 10


def test_a_missing_or_damaged_trial_names_the_command_that_makes_it(tmp_path):
    files = Trial("full-0", tmp_path)
    assert command_for(files.scores) == "dvc repro trial@full-0"
    with pytest.raises(ArtifactError, match="dvc repro trial@full-0"):
        read_trial(files)
    files.folder.mkdir(parents=True)
    files.scores.write_text(json.dumps({"key": "full-0"}))
    with pytest.raises(ArtifactError, match="it lacks study"):
        read_trial(files)
