"""The params in presets/examples: valid, and enough for the whole chain on a game of Gymnasium."""

import importlib.util
import re

import pytest
import yaml
from lab import make_project, run
from tiny import PPO, ROOT

from worldmodels.cli.presets import files_of, use_preset
from worldmodels.project import load_project

EXAMPLES = {path.stem: path for path in files_of(ROOT, "preset") if path.parent.name == "examples"}


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_valid_and_called_as_its_file(name, tmp_path):
    params = yaml.safe_load(EXAMPLES[name].read_text())
    (env,) = params["environments"]
    package = params[env]["game"].get("id", "").rpartition(":")[0]
    if package and importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    (tmp_path / "presets/examples").mkdir(parents=True)
    (tmp_path / f"presets/examples/{name}.yaml").write_bytes(EXAMPLES[name].read_bytes())
    use_preset(tmp_path, name, [], force=False)
    project = load_project(tmp_path / "params.yaml")
    assert project.preset == name
    assert set(project.agents) == {f"{env}-1"}
    assert f"wm preset {name}" in EXAMPLES[name].read_text()
    assert f"evaluate@{env}-1`" in EXAMPLES[name].read_text()


def small() -> dict:
    """Return the example of LunarLander, with next to nothing to do."""
    params = yaml.safe_load(EXAMPLES["lunarlander"].read_text())
    params["compute"] = {"threads": 1, "compile": False}
    section = params["lunarlander"]
    section["game"]["limit"] = 120
    section["collect"]["first_episodes"] = 5
    section["vision"]["optimiser"].update(updates=3, batch=8)
    section["memory"]["model"]["hidden"] = 16
    section["memory"]["optimiser"].update(updates=3, batch=4)
    section["memory"]["sequence"] = 8
    section["calibrate"]["dreams"] = section["evaluate"]["dreams"] = section["evaluate"]["episodes"] = 2
    learn = section["controllers"]["learn"]
    learn["phases"]["learn"] = {**PPO, "moments": {"share": 0.5, "context": 3}}
    learn["selection"] = {"episodes": 2, "every": 1}
    return params


def test_the_whole_chain_runs_and_what_is_collected_does_not_depend_on_the_number_of_cores(tmp_path):
    kept = []
    for threads, target in ((2, []), (1, ["collect@lunarlander-1"])):
        params = small()
        params["compute"]["threads"] = threads
        folder = make_project(tmp_path / str(threads), params)
        said = run(folder, "dvc", "repro", *target).stdout
        assert len(re.findall(r"Running stage '", said)) == (2 if target else 10)
        episodes = folder / "artifacts/world_models/lunarlander-1/episodes"
        kept.append({path.relative_to(episodes): path.read_bytes() for path in episodes.rglob("*") if path.is_file()})
    assert len(kept[0]) >= 2
    assert kept[0] == kept[1]
    scores = yaml.safe_load((tmp_path / "2/metrics/lunarlander-1.json").read_text())
    assert (scores["rules"], scores["real"]["n"], scores["random"]["n"]) == ("lunarlander-v3-limit120", 2, 2)
