"""DVC's registry of models: what `artifacts` of dvc.yaml names can be fetched from a clone, and is in nobody's way."""

import shutil
from pathlib import Path

import pytest
import yaml
from lab import commit, make_project, one_iteration, run
from tiny import ROOT

from worldmodels.agent.agent import load_agent

ARTIFACTS = yaml.safe_load((ROOT / "dvc.yaml").read_text())["artifacts"]


@pytest.mark.parametrize("name", ARTIFACTS)
def test_the_best_agent_of_each_game_is_there(name):
    agent = load_agent(ROOT / ARTIFACTS[name]["path"])
    assert agent.card.environment == name
    assert ARTIFACTS[name]["type"] == "model"


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_an_artifact_is_fetched_by_its_name_from_git_or_from_a_remote(iteration, tmp_path):
    """As docs/track-compare-release.md says: one of the repository, and one that a run made."""
    project, remote, clone = tmp_path / "project", tmp_path / "remote", tmp_path / "clone"
    shutil.copytree(iteration, project)
    shutil.copytree(ROOT / "pretrained", project / "pretrained")
    made, text = files(project / "artifacts/agents/doom-1/agent"), (project / "dvc.yaml").read_text()
    (project / "dvc.yaml").write_text(
        text.replace("artifacts:", "artifacts:\n  mine: { path: artifacts/agents/doom-1/agent, type: model }\n#", 1)
    )
    run(project, "dvc", "remote", "add", "--default", "storage", str(remote))
    commit(project, "Release an agent")
    assert "up to date" in run(project, "dvc", "status").stdout
    run(project, "dvc", "push", "artifacts/agents/doom-1/agent")
    for name in ("mine", "doom"):
        run(project, "gto", "register", name, "--version", "v1.0.0")
    run(tmp_path, "git", "clone", "-q", str(project), str(clone), PYTHONPATH=str(project / "src"))
    shutil.rmtree(project)
    for name, expected in (("mine", made), ("doom", files(ROOT / "pretrained/doom"))):
        run(clone, "dvc", "artifacts", "get", ".", name, "--rev", "v1.0.0", "--out", f"../got/{name}")
        assert files(tmp_path / "got" / name) == expected
    assert load_agent(tmp_path / "got/mine").card.environment == "doom"
    missing = run(clone, "dvc", "artifacts", "get", ".", "carracing", check=False)
    assert missing.returncode
    assert "carracing" in missing.stderr


def test_they_are_in_nobody_s_way_whose_params_have_another_game(tmp_path):
    params = one_iteration()
    section, model, agent = params.pop("doom"), params["world_models"].pop("doom-1"), params["agents"].pop("doom-1")
    section["game"] = {"kind": "gym", "id": "Pendulum-v1", "limit": 60}
    params |= {"environments": ["pendulum"], "pendulum": section}
    zero = {"env": "pendulum", "after": "pendulum-0", "player": "pendulum-0", "explorer": "pendulum-0"}
    params["world_models"] = {"pendulum-1": model | zero}
    params["agents"] = {"pendulum-1": agent | {"env": "pendulum", "world_model": "pendulum-1", "begin": "pendulum-0"}}
    project = make_project(tmp_path / "project", params)
    assert "evaluate@pendulum-1" in run(project, "dvc", "dag").stdout
    assert "evaluate@pendulum-1" in run(project, "dvc", "status").stdout
    assert "pipeline.initialise" in run(project, "dvc", "repro", "initialise@pendulum").stdout
