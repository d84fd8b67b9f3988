"""The registry as the release process: real stores, the real gate, and a version served over HTTP by MLflow itself."""

import json
import math
import os
import re
import shutil
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import mlflow
import numpy as np
import pandas as pd
import pytest
import torch
from lab import answers, free_port, serving
from scipy import stats
from typer.testing import CliRunner

from worldmodels.agent.agent import Agent, load_agent, save_agent
from worldmodels.cli.main import app
from worldmodels.controller.model import ControllerConfig, parameter_count
from worldmodels.memory.lstm import LSTMConfig
from worldmodels.report.pictures import write_png
from worldmodels.storage.agents import AgentCard
from worldmodels.storage.files import write_table
from worldmodels.storage.layout import AgentFiles
from worldmodels.tracking.registry import RETURNS, alias_of, register, set_aliases
from worldmodels.tracking.release import Outcome, judge, sign_flip_p
from worldmodels.tracking.store import game_experiment, lock, open_store
from worldmodels.vision.model import Vision, VisionConfig
from worldmodels.worlds.dream import Starts

REPOSITORY = Path(__file__).resolve().parent.parent
HIDDEN, EPISODES = 8, 20
DOOM, CARRACING = "worldmodels-doom", "worldmodels-carracing"

_draw = np.random.default_rng(0)
RANDOM = np.round(_draw.normal(200, 80, EPISODES))
GOOD = RANDOM + np.round(_draw.normal(150, 60, EPISODES))
SIMILAR = GOOD + np.round(_draw.normal(0, 40, EPISODES))
BETTER = GOOD + np.round(_draw.normal(60, 40, EPISODES))
NO_BETTER = RANDOM + np.round(_draw.normal(0, 30, EPISODES))
RULES = {"rules": "takecover", "backend": "vizdoom"}
VERSIONS = {
    1: (GOOD, 0, RULES),
    2: (SIMILAR, 0, RULES),
    3: (BETTER, 0, RULES),
    4: (NO_BETTER, 0, RULES),
    5: (BETTER, 0, RULES | {"rules": "takecover-easy"}),
    6: (BETTER, 1000, RULES),
    7: (BETTER, 0, RULES | {"study": "ablation"}),
    8: (BETTER, 0, RULES | {"block": "development"}),
}
"""Version -> returns of its test episodes, the first of their seeds, what else is told of it. Version k is agent doom-k."""


def make_agent(folder, environment):
    """A small untrained agent whose real episodes are short."""
    torch.manual_seed(0)
    vision = Vision(VisionConfig(latent=4))
    memory = LSTMConfig(hidden=HIDDEN).build(4, 1)
    torch.nn.init.normal_(memory.input_weight)
    shape = ControllerConfig(features="zch", hidden=0, bias=False)
    game = {"kind": "vizdoom", "skill": 4, "limit": 25, "resolution": "160x120"}
    card = AgentCard(kind="world-model", environment=environment, game=game, controller=shape.model_dump())
    starts = Starts(torch.zeros(1, 4), torch.zeros(1, 4))
    save_agent(folder, Agent(card, vision, memory, torch.randn(parameter_count(shape, 20, 1)), starts))


def make_version(client, root, key, returns, first, told):
    """An agent's files, registered as `wm track sync` does it; its iteration is called as it is."""
    files, (environment, _, number) = AgentFiles(key, root), key.rpartition("-")
    make_agent(files.agent, environment)
    seeds = np.arange(first, first + len(returns))
    tables = [
        pd.DataFrame({"world": world, "seed": seeds, "total": total, "length": 9, "terminal": True})
        for world, total in (("real", returns), ("dream", returns + 5), ("random", RANDOM[: len(returns)]))
    ]
    write_table(files.returns, pd.concat(tables))
    write_png(files.filmstrip, np.full((8, 8, 3), int(number), np.uint8))
    real = {"mean": returns.mean(), "stderr": returns.std(ddof=1) / len(returns) ** 0.5, "n": len(returns)}
    real |= {"min": returns.min(), "max": returns.max(), "seeds": [first, first + len(returns) - 1]}
    blind = {"policy": "sweep 100", "mean": 7.0, "stderr": 1.0, "n": 20}
    scores = {"key": key, "environment": environment, "world_model": f"{environment}-1", "controller": "dream", "study": "none"}
    scores |= {"preset": "quick", "seed": 0, "controller_seed": 0, "block": "test", "selection": None, **told}
    scores |= {"real": real, "dream": {"temperature": 1.15, **real}, "random": real, "blind": blind, "gap": 5.0}
    parts = {"agent": files.agent, "returns": files.returns, "picture": files.filmstrip}
    with lock(root):
        experiment = game_experiment(client, root, environment)
    iteration = client.create_run(experiment, run_name=key, tags={"wm.kind": "iteration"}).info.run_id
    return str(register(client, iteration, parts, scores, {}, client.create_run(experiment).info.run_id).version)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A project whose registry holds the versions above, of doom, and one of carracing."""
    root = tmp_path_factory.mktemp("made")
    (root / "dvc.yaml").touch()
    given = os.environ.pop("MLFLOW_TRACKING_URI", None)
    client = open_store(root)
    for number, (returns, first, told) in VERSIONS.items():
        assert make_version(client, root, f"doom-{number}", returns, first, told) == str(number)
    make_version(client, root, "carracing-1", GOOD[:4], 0, RULES)
    set_aliases(client, "doom", {f"doom-{number}": str(number) for number in range(1, 7)})
    set_aliases(client, "carracing", {"carracing-1": "1"})
    if given is not None:
        os.environ["MLFLOW_TRACKING_URI"] = given
    return root


@pytest.fixture
def client(made, tmp_path, monkeypatch):
    """A client of a copy of the registry, in which the test is alone; the current folder is its project."""
    for name in ("mlflow.db", "dvc.yaml"):
        shutil.copy(made / name, tmp_path)
    (tmp_path / "mlartifacts").symlink_to(made / "mlartifacts")  # no test writes there
    monkeypatch.chdir(tmp_path)
    for name in ("MLFLOW_TRACKING_URI", "DVC_ROOT"):
        monkeypatch.delenv(name, raising=False)
    return open_store(tmp_path)


def wm(*arguments):
    result = CliRunner().invoke(app, ["registry", *arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def champion(client):
    version = client.get_registered_model(DOOM).aliases.get("champion")
    return None if version is None else str(version)


def tags(client, version):
    return client.get_model_version(DOOM, str(version)).tags


# The test


def test_p_of_a_constant_advantage_none_and_a_disadvantage():
    assert sign_flip_p(np.full(10, 3.0)) == 2**-10
    assert sign_flip_p(np.zeros(10)) == 1
    assert sign_flip_p(np.full(10, -3.0)) == 1
    assert sign_flip_p(np.full(50, 0.1)) == pytest.approx(1 / 20_000)  # never 0
    assert sign_flip_p(np.ones(1)) == 0.5


def test_p_of_many_normal_differences_is_near_that_of_the_t_test_and_always_the_same():
    for shift in (0.0, 0.1, 0.2):
        differences = np.random.default_rng(1).normal(shift, 1, 100)
        p = sign_flip_p(differences)
        assert p == pytest.approx(stats.ttest_1samp(differences, 0, alternative="greater").pvalue, abs=0.01)
        assert sign_flip_p(differences) == p


def test_one_that_is_no_better_passes_no_more_often_than_alpha():
    # Cauchy differences: no variance, no normality. 1,000 gates, 50 passes expected; 80 with odds of 1 in 30,000.
    generator = np.random.default_rng(2)
    assert sum(sign_flip_p(generator.standard_cauchy(8)) < 0.05 for _ in range(1000)) < 80


def policy(returns, name="version 9", rules="a", backend="b", block="test", first=0):
    return Outcome(name, rules, backend, block, np.arange(first, first + len(returns)), np.asarray(returns, float))


def test_the_verdict_names_both_scores_the_difference_p_and_the_level():
    verdict = judge(policy([12, 11, 13, 14, 12, 10]), policy([2, 1, 3, 4, 2, 2], "the champion"))
    assert verdict.passed
    assert verdict.p == 2**-6
    assert verdict.reason == (
        "version 9 has 12.0, the champion 2.3 on the same 6 test episodes: +9.7 ± 0.3, p = 0.016 < alpha = 0.05 "
        "(one-sided paired sign-flip test)."
    )


def test_too_few_episodes_are_said_to_be_too_few():
    verdict = judge(policy([9.0] * 4), policy([1.0] * 4))
    assert not verdict.passed
    assert "So few episodes" in verdict.reason
    assert judge(policy([9.0] * 5), policy([1.0] * 5)).passed
    assert judge(policy([9.0]), policy([1.0])).stderr is None


@pytest.mark.parametrize(
    ("other", "word"),
    [
        ({"rules": "z"}, "other rules"),
        ({"backend": "z"}, "back end"),
        ({"block": "z"}, "another block"),
        ({"first": 1}, "9 with seeds 1 to 9"),
    ],
)
def test_what_was_not_tested_alike_is_not_compared(other, word):
    verdict = judge(policy([9.0] * 9), policy([1.0] * 9, **other))
    assert not verdict.passed
    assert verdict.p is None
    assert word in verdict.reason


# Versions


def test_a_version_holds_its_returns_a_picture_and_a_card_that_shows_it(client, made):
    version = client.get_model_version(DOOM, "3")
    for line in (
        "doom-3 gets 4", "World model `doom-1`, controller `dream`.", "real, test seeds", "temperature 1.15",
        "does not look (sweep 100)", "load_model", "wm evaluate",
    ):  # fmt: skip
        assert line in version.description
    address = urlsplit(re.search(r"!\[.*?\]\((.*?)\)", version.description)[1])
    asked = {name: values[0] for name, values in parse_qs(address.query).items()}
    assert (address.path, asked["name"], asked["version"]) == ("model-versions/get-artifact", DOOM, "3")
    picture = mlflow.artifacts.download_artifacts(f"models:/{DOOM}/3/{asked['path']}")
    assert Path(picture).read_bytes() == AgentFiles("doom-3", made).filmstrip.read_bytes()
    returns = mlflow.artifacts.download_artifacts(f"models:/{DOOM}/3/{RETURNS}")
    assert pd.read_parquet(returns).query("world == 'real'")["total"].tolist() == BETTER.tolist()


def test_list_shows_every_version_with_its_aliases_score_and_what_the_gate_said(client):
    wm("promote", "doom/1")
    wm("promote", "doom/4")
    text = wm("list").stdout
    assert text.index(CARRACING) < text.index(DOOM)
    rows = {row["version"]: row for row in json.loads(wm("list", "doom", "--json").stdout)}
    assert list(rows) == ["8", "7", "6", "5", "4", "3", "2", "1"]
    assert rows["1"]["aliases"] == ["champion", "doom-1"]
    assert rows["6"]["aliases"] == ["candidate", "doom-6"]
    assert (rows["7"]["aliases"], rows["7"]["agent"], rows["7"]["study"]) == ([], "doom-7", "ablation")
    assert {number: row["gate"].split()[0] for number, row in rows.items() if row["gate"]} == {"1": "promoted", "4": "refused"}
    assert rows["2"]["mean"] == pytest.approx(SIMILAR.mean(), rel=1e-5)
    assert rows["2"]["n"] == EPISODES


def test_list_takes_tags_that_somebody_wrote_by_hand(client):
    for name, text in (("real.mean", "abc"), ("real.stderr", "1e999"), ("real.n", "many")):
        client.set_model_version_tag(DOOM, "3", name, text)
    assert "doom-3" in wm("list", "doom").stdout
    row = next(row for row in json.loads(wm("list", "doom", "--json").stdout) if row["version"] == "3")
    assert (row["mean"], row["stderr"], row["n"]) == (None, None, None)


@pytest.mark.parametrize(
    ("key", "alias"),
    [("doom-2-game", "doom-2-game"), ("latest", "agent-latest"), ("V12", "agent-V12"), ("champion", "agent-champion")],
)
def test_an_alias_is_the_key_unless_that_means_something_else(client, key, alias):
    assert alias_of(key) == alias
    set_aliases(client, "doom", {key: "2"})
    assert str(client.get_registered_model(DOOM).aliases[alias]) == "2"
    assert champion(client) is None


# The gate


def test_the_first_champion_must_beat_the_random_policy(client):
    refused = wm("promote", "doom/4")
    assert refused.exit_code == 1
    assert "the random policy" in refused.stderr
    assert "stays without a champion" in refused.stderr
    assert champion(client) is None
    told = tags(client, 4)
    assert told["wm.gate"].startswith("refused 20")
    assert "version 4 (doom-4) has" in told["wm.gate"]
    assert (told["wm.gate.passed"], told["wm.gate.against"], told["wm.gate.alpha"]) == ("false", "random", "0.05")
    assert float(told["wm.gate.p"]) > 0.05

    passed = wm("promote", "doom-1")
    assert passed.exit_code == 0
    assert champion(client) == "1"
    assert tags(client, 1)["wm.gate.passed"] == "true"
    assert tags(client, 1)["wm.gate"].startswith("promoted 20")


def test_a_challenger_needs_evidence_else_the_champion_stays_and_the_reason_is_written_down(client):
    wm("promote", "doom/1")
    compared = json.loads(wm("compare", "doom/2", "--json").stdout)
    assert compared["reference"] == f"{DOOM}/1"
    assert compared["difference"] == pytest.approx((SIMILAR - GOOD).mean())
    assert 0.05 < compared["p"] < 0.5
    assert "wm.gate" not in tags(client, 2)  # to compare changes nothing
    refused = wm("promote", "doom/2")
    assert refused.exit_code == 1
    assert f"{DOOM}/1 stays the champion" in refused.stderr
    assert champion(client) == "1"
    assert f"p = {compared['p']:.2g} not below alpha = 0.05" in tags(client, 2)["wm.gate"]
    assert tags(client, 2)["wm.gate.against"] == "1"

    assert wm("promote", "doom/2", "--alpha", "0.5").exit_code == 0
    assert champion(client) == "2"
    assert "already" in wm("promote", "doom@champion").stdout


def test_what_was_tested_otherwise_does_not_become_champion(client):
    wm("promote", "doom/1")
    for version, word in (("5", "takecover-easy"), ("6", "seeds 1000 to 1019")):
        refused = wm("promote", f"doom/{version}")
        assert refused.exit_code == 1
        assert word in refused.stderr
        assert word in tags(client, version)["wm.gate"]
        assert tags(client, version)["wm.gate.p"] == ""
    assert champion(client) == "1"


def test_an_agent_of_a_study_is_compared_and_not_promoted(client):
    assert json.loads(wm("compare", "doom-7", "doom-1", "--json").stdout)["passed"]
    refused = wm("promote", "doom-7")
    assert refused.exit_code == 1
    assert "study `ablation`" in refused.stderr
    assert champion(client) is None


def test_an_agent_that_played_development_episodes_is_neither_promoted_nor_compared_with_the_champion(client):
    for champion_now in (None, "1"):  # it would beat the random policy and the champion
        refused = wm("promote", "doom-8")
        assert refused.exit_code == 1
        assert "played development episodes" in refused.stderr
        assert champion(client) == champion_now
        wm("promote", "doom/1")
    told = json.loads(wm("compare", "doom-8", "--json").stdout)
    assert (told["passed"], told["p"]) == (False, None)
    assert "on another block of episodes" in told["reason"]


def test_a_champion_and_its_iteration_say_why_it_is_champion(client):
    def note(key):
        (run,) = client.search_runs([client.get_experiment_by_name(DOOM).experiment_id], f"attributes.run_name = '{key}'")
        return run.data.tags["mlflow.note.content"], run.data.tags["champion"]

    card = client.get_model_version(DOOM, "1").description
    wm("promote", "doom/1")
    wm("promote", "doom/4")
    first, why, *rest = client.get_model_version(DOOM, "1").description.split("\n\n")
    assert first == card.split("\n\n")[0]
    assert why.startswith("> promoted 20")
    assert "the random policy" in why
    assert [first, *rest] == card.split("\n\n")
    assert f"**champion**: {why.removeprefix('> ')} |" in note("doom-1")[0]
    assert note("doom-1")[1] == "doom-1"
    assert "| refused 20" in note("doom-4")[0]
    wm("promote", "doom/3")
    assert "(doom-3) is better" in client.get_model_version(DOOM, "1").description.split("\n\n")[1]
    assert (note("doom-1")[1], note("doom-3")[1]) == ("-", "doom-3")
    wm("rollback", "doom")
    assert (note("doom-1")[1], note("doom-3")[1]) == ("doom-1", "-")


def test_rollback_returns_to_the_champion_before(client):
    for version in ("doom/1", "doom/3"):
        assert wm("promote", version).exit_code == 0
    assert wm("rollback", "doom").stdout.strip() == f"{DOOM}/1 is the champion again."
    assert champion(client) == "1"
    assert tags(client, 3)["wm.gate"].startswith("rolled back 20")
    first = wm("rollback", "doom")
    assert first.exit_code == 1
    assert "--retire" in first.stderr
    assert champion(client) == "1"
    assert wm("rollback", "doom", "--retire").exit_code == 0
    assert champion(client) is None
    assert wm("rollback", "doom").exit_code == 1
    assert wm("promote", "doom/2").exit_code == 0  # against the random policy again
    assert tags(client, 2)["wm.gate.against"] == "random"


def test_a_refused_attempt_changes_nothing_of_the_way_back(client):
    wm("promote", "doom/1")
    assert wm("promote", "doom/2", "--alpha", "0.5").exit_code == 0
    assert wm("promote", "doom/1").exit_code == 1  # refused
    assert wm("rollback", "doom").stdout.strip() == f"{DOOM}/1 is the champion again."
    assert wm("rollback", "doom").exit_code == 1  # not back to version 2
    assert champion(client) == "1"


def test_rollback_goes_back_champion_by_champion_and_passes_over_deleted_ones(client):
    for version, alpha in (("1", "0.05"), ("2", "0.5"), ("3", "0.05")):
        assert wm("promote", f"doom/{version}", "--alpha", alpha).exit_code == 0
    client.delete_model_version(DOOM, "2")
    assert wm("rollback", "doom").stdout.strip() == f"{DOOM}/1 is the champion again."
    assert wm("promote", "doom/3").exit_code == 0
    assert wm("rollback", "doom").stdout.strip() == f"{DOOM}/1 is the champion again."


def test_the_history_tells_every_champion_with_time_and_reason(client):
    assert "No version was ever promoted" in wm("history", "doom").stdout
    wm("promote", "doom/1")
    wm("promote", "doom/4")  # refused
    wm("promote", "doom/3")
    wm("rollback", "doom")
    told = json.loads(wm("history", "doom", "--json").stdout)
    assert [(row["version"], row["agent"], row["gate"], row["champion"]) for row in told] == [
        ("1", "doom-1", "rolled back", True), ("3", "doom-3", "promoted", False), ("1", "doom-1", "promoted", False)
    ]  # fmt: skip
    assert all(re.fullmatch(r"20\d\d-\d\d-\d\d \d\d:\d\d UTC", row["time"]) for row in told)
    assert "the random policy" in told[2]["reason"]
    wm("rollback", "doom", "--retire")
    text = wm("history", "doom").stdout
    assert "retired: no champion" in text
    assert "promoted: version 3 (doom-3)" in text
    client.set_registered_model_tag(DOOM, "wm.champion.0009", "nonsense")
    assert wm("history", "doom").stdout == text


def test_there_is_no_way_back_to_a_champion_that_was_deleted_or_from_one_set_by_hand(client):
    for version in ("doom/1", "doom/3"):
        wm("promote", version)
    client.delete_model_version(DOOM, "1")
    assert "no champion before it" in wm("rollback", "doom").stderr
    client.set_registered_model_alias(DOOM, "champion", "4")
    assert "no champion before it" in wm("rollback", "doom").stderr
    assert champion(client) == "4"


def test_a_sync_moves_the_candidate_and_leaves_the_champion(client):
    wm("promote", "doom/3")
    set_aliases(client, "doom", {"doom-1": "1", "doom-2": "2"})
    assert champion(client) == "3"
    assert str(client.get_registered_model(DOOM).aliases["candidate"]) == "2"


def test_a_version_without_its_table_stops_the_gate(client):
    run = client.create_run(client.get_experiment_by_name(DOOM).experiment_id)
    bare = client.create_model_version(DOOM, f"runs:/{run.info.run_id}/agent", run.info.run_id)
    result = wm("promote", f"doom/{bare.version}")
    assert result.exit_code == 1
    assert "wm track sync" in result.stderr
    assert champion(client) is None
    assert wm("list", "doom").exit_code == 0


# What a person may get wrong


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (("promote", "dom"), "`doom`"),
        (("promote", "doom@champ"), "`doom@candidate`"),
        (("promote", "doom/9"), "`doom/8`"),
        (("promote", "doom@dom-2"), "`doom@doom-2`"),
        (("promote", "doom-12"), "`doom-2`"),
        (("promote", "models:/doom/x/y"), "nothing in the registry is called `models:/doom/x/y`"),
        (("compare", "doom/1", "carracing/1"), "different games"),
        (("compare", "doom/1", "rondam"), "nothing in the registry is called `rondam`"),
        (("list", "domo"), f"`{DOOM}`"),
        (("rollback", "carrace"), f"`{CARRACING}`"),
        (("promote", "doom", "--alpha", "0.9"), "0.5"),
    ],
)
def test_wrong_names_exit_2_and_say_what_is_near(client, arguments, hint):
    result = wm(*arguments)
    assert result.exit_code == 2
    assert hint in result.stderr


@pytest.mark.parametrize("name", ["doom", "doom@candidate", "doom/6", "doom-6", f"{DOOM}/6", f"models:/{DOOM}@candidate"])
def test_a_version_has_many_names(client, name):
    assert json.loads(wm("compare", name, "random", "--json").stdout)["challenger"] == f"{DOOM}/6"


def test_without_a_store_or_a_server_it_says_so_and_makes_none(tmp_path, monkeypatch):
    (tmp_path / "dvc.yaml").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    result = wm("list")
    assert result.exit_code == 1
    assert "wm track sync" in result.stderr
    assert not (tmp_path / "mlflow.db").exists()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://someone:s3cret@127.0.0.1:{port}")
    result = wm("promote", "doom")
    assert result.exit_code == 1
    assert "Start its server" in result.stderr
    assert result.stderr.count("MLflow at") == 1
    assert "s3cret" not in result.stderr


def test_the_champion_is_an_agent_for_wm_evaluate(client):
    wm("promote", "doom/1")
    result = CliRunner().invoke(app, ["evaluate", f"models:/{DOOM}@champion", "--episodes", "1", "--json"])
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["summary"]["n"] == 1


# The served agent


@pytest.fixture(scope="module")
def served(made, tmp_path_factory):
    """The address of version 1 behind `mlflow models serve`, started as docs/serving.md says, without pickles and project."""
    folder, port = tmp_path_factory.mktemp("served"), free_port()
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", f"models:/{DOOM}/1", "--env-manager", "local"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW", "PYTHONPATH"))}
    environment |= {"MLFLOW_TRACKING_URI": f"sqlite:///{made}/mlflow.db", "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    address = f"http://127.0.0.1:{port}"
    ready = lambda: answers(f"{address}/health")  # noqa: E731
    with serving([*command, "--port", str(port)], ready, folder / "log", cwd=folder, env=environment):
        yield f"{address}/invocations"


def post(address, body, kind="application/json"):
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(address, content, {"Content-Type": kind})
    try:
        with urllib.request.urlopen(request, timeout=300) as answer:
            return answer.status, json.load(answer)["predictions"]
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def frames(streams, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (streams, 64, 64, 3), dtype=np.uint8)


def zeros(streams):
    return np.zeros((streams, 2 * HIDDEN)).tolist()


def test_streams_act_over_http_as_the_agent_does_and_none_knows_of_another(served, made):
    agent = load_agent(AgentFiles("doom-1", made).agent)
    memory, state, actions = zeros(3), agent.initial_state(3), []
    for step in range(3):
        seen = frames(3, step)
        status, answer = post(served, {"inputs": {"frame": seen.tolist(), "memory": memory}})
        assert status == 200
        expected, state = agent.act(seen, state)
        np.testing.assert_allclose(answer["action"], expected, atol=1e-5)
        np.testing.assert_allclose(answer["memory"], state, atol=1e-5)
        memory = answer["memory"]
        actions.append(answer["action"])
    assert np.shape(actions) == (3, 3, 1)
    assert np.abs(actions).max() <= 1
    memory = zeros(1)
    for step in range(3):  # the second stream again, alone
        _, alone = post(served, {"inputs": {"frame": frames(3, step)[1:2].tolist(), "memory": memory}})
        np.testing.assert_allclose(alone["action"][0], actions[step][1], atol=1e-5)
        memory = alone["memory"]


def inputs(frame=None, memory=None):
    return {"inputs": {name: value for name, value in (("frame", frame), ("memory", memory)) if value is not None}}


WRONG = {
    "no memory": (inputs(frames(2).tolist()), "missing inputs ['memory']"),
    "a frame of another size": (inputs(frames(2)[:, :63].tolist(), zeros(2)), "(2, 63, 64, 3) does not match"),
    "one frame without the axis of streams": (inputs(frames(1)[0].tolist(), zeros(1)), "(64, 64, 3) does not match"),
    "a grey frame": (inputs(frames(2)[..., :1].tolist(), zeros(2)), "(2, 64, 64, 1) does not match"),
    "memory of another model": (inputs(frames(2).tolist(), [[0.0] * 5] * 2), "(2, 5) does not match"),
    "memory of fewer streams": (inputs(frames(2).tolist(), zeros(1)), "holds 2 streams, `memory` 1"),
    "no streams": (inputs([], []), "does not match"),
    "frames that end early": (inputs([frames(1)[0].tolist(), frames(1)[0, :5].tolist()], zeros(2)), "inhomogeneous"),
    "values above 255": (inputs((frames(2).astype(int) + 200).tolist(), zeros(2)), "out of bounds for uint8"),
    "text for a frame": (inputs("hello", zeros(2)), "'hello'"),
    "memory that is not a number": (inputs(frames(1).tolist(), [[math.nan] * 2 * HIDDEN]), "is not finite"),
    "no inputs": ({"frame": 1}, "exactly one of the input fields"),
    "no JSON": (b"{", "valid JSON"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_request_is_answered_by_400_and_the_reason(served, case):
    body, reason = WRONG[case]
    status, text = post(served, body)
    assert status == 400
    assert reason in json.loads(text)["message"]
    assert len(text) < 8000  # an excerpt of the request, not all of it
    assert "stack_trace" not in text


def test_more_streams_than_one_request_may_hold_are_refused_with_the_limit(served):
    row, memory = json.dumps(np.zeros((64, 64, 3), int).tolist()), json.dumps(zeros(1)[0])
    body = f'{{"inputs": {{"frame": [{", ".join([row] * 257)}], "memory": [{", ".join([memory] * 257)}]}}}}'
    status, text = post(served, body.encode())
    assert status == 400
    assert "257 streams are too many: send at most 256" in json.loads(text)["message"]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"inputs": {"frame": ' + b"[" * 900 + b"]" * 900 + b', "memory": []}}', 400),
        (b'{"inputs": {"frame": [' + b"1" * 4000 + b'], "memory": [[0]]}}', 400),
        (b'{"inputs": {"frame": [1e999], "memory": [[0]]}}', 400),
        (b'{"inputs": ' + b"[" * 100_000, 500),  # MLflow reads it, not the agent: docs/serving.md says so
        (b'{"inputs": ' + b"1" * 5000 + b"}", 500),
    ],
    ids=["nested", "4,000 digits", "1e999", "nested too deeply for JSON", "5,000 digits"],
)
def test_json_that_goes_too_far_is_refused_and_the_server_lives_on(served, body, status):
    assert post(served, body)[0] == status
    assert post(served, inputs(frames(1).tolist(), zeros(1)))[0] == 200


def test_another_content_type_is_answered_by_415_and_the_server_lives_on(served):
    assert post(served, b"x", "application/octet-stream")[0] == 415
    assert post(served, inputs(frames(1).tolist(), zeros(1)))[0] == 200


def test_the_client_of_the_documentation_works(served):
    code = re.search(r"```python\n(.*?)```", (REPOSITORY / "docs" / "serving.md").read_text(), re.DOTALL)[1]
    environment = os.environ | {"AGENT": served.removesuffix("/invocations"), "MEMORY": str(2 * HIDDEN)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert re.search(r"step 2: actions \[-?[01]\.\d+, -?[01]\.\d+\]", done.stdout)
