"""The forecast: every stage is in it, and its seconds follow from what the params ask for."""

import math
from pathlib import Path

import pytest
import yaml
from closure import ROOT
from tiny import tiny_params

from worldmodels.cli.presets import forecast_table
from worldmodels.cli.sweep import _checked
from worldmodels.errors import ArtifactError
from worldmodels.forecast import RATES, forecast, read_rates
from worldmodels.project import Project, load_project
from worldmodels.storage.layout import STAGES


def preset(name: str) -> Project:
    return load_project(ROOT / "presets" / f"{name}.yaml")


@pytest.mark.parametrize("name", ["quick", "laptop", "paper"])
def test_every_stage_of_a_preset_is_forecast_from_the_rates_that_are_there(name):
    project = preset(name)
    keys = {section: list(getattr(project, section)) for section in STAGES.values() if section}
    keys["environments"] = [f"{env}" for env in project.environments]
    stages = [f"{stage}@{key}" for stage, section in STAGES.items() if section for key in keys[section]]
    for rates in read_rates(ROOT / RATES).values():
        found = forecast(project, rates)
        assert sorted(found) == sorted([*stages, "report"])
        assert all(seconds > 0 and math.isfinite(seconds) for seconds in found.values())


def test_the_seconds_are_what_the_paper_does_over_the_rates():
    rates = dict.fromkeys(read_rates(ROOT / RATES).popitem()[1], 1.0) | {"seconds to start a stage": 0.0}
    found = forecast(preset("paper"), rates)
    frames = 10_000 * 1001
    assert found["encode@carracing-1"] == frames
    assert found["vision@carracing-1"] == 10 * frames
    assert found["memory@carracing-1"] == 4000 * 100 * 999 * 422_368
    search = 1800 * 64 * 16 * 1000
    choice = 1800 // 25 * 1024 * 1000
    assert found["controller@carracing-1"] == 2 * (search + choice)  # a step is played and seen


def test_a_later_world_model_has_the_frames_of_all_before_it(tmp_path):
    rates = read_rates(ROOT / RATES).popitem()[1]
    found = forecast(preset("laptop"), rates | {"seconds to start a stage": 0.0})
    first, second, third = (found[f"encode@doom-{number}"] for number in (1, 2, 3))
    assert 0 < third - second == pytest.approx(second - first)


def test_a_variant_of_a_sweep_costs_what_its_values_say(tmp_path):
    (tmp_path / "params.yaml").write_text((ROOT / "presets/quick.yaml").read_text())
    rates = read_rates(ROOT / RATES).popitem()[1]
    once, twice = (forecast(_checked(tmp_path, {"doom.vision.optimiser.updates": count}), rates) for count in ("1200", "2400"))
    changed = {stage for stage in once if once[stage] != twice[stage]}
    assert changed == {"vision@doom-1"}
    start = rates["seconds to start a stage"]
    assert twice["vision@doom-1"] - start == pytest.approx(2 * (once["vision@doom-1"] - start))


def test_of_a_machine_of_which_nothing_is_known_nothing_is_said():
    assert all(math.isnan(seconds) for seconds in forecast(preset("paper"), {}).values())


def test_what_was_not_measured_is_said(tmp_path):
    params = tiny_params()
    params["doom"]["game"]["resolution"] = "320x240"
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    project = load_project(tmp_path / "params.yaml")
    found = forecast(project, read_rates(ROOT / RATES).popitem()[1])
    assert math.isnan(found["collect@doom-1"])
    assert found["vision@doom-1"] > 0
    table = forecast_table(project, found)
    rows = {line.split()[0]: line for line in table.splitlines()}
    assert "not measured" in rows["collect"]
    assert "not measured" in rows["all"]
    assert "not measured" not in rows["vision"]


@pytest.mark.parametrize("text", ["", "hardware,what\na,b\n", "hardware,what,value,source\na,b,c,d\n"])
def test_a_damaged_table_of_rates_is_one_message(tmp_path, text):
    path = tmp_path / "rates.csv"
    path.write_text(text)
    if not text:
        assert read_rates(path) == read_rates(Path("nowhere")) == {}
        return
    with pytest.raises(ArtifactError, match="no table of rates"):
        read_rates(path)
