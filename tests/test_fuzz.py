"""Whatever stands in params.yaml or on the command line: never a traceback, always a message; exit code 2 for what is wrong."""

import copy
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from test_cli import commit_all, make_agent, scores_of, write_scores
from tiny import ROOT
from typer.testing import CliRunner

from worldmodels.cli.main import app

EXAMPLES = int(os.environ.get("WM_FUZZ_EXAMPLES", "50"))
"""Inputs that each test tries; `make test-slow` tries more."""
fuzz = settings(max_examples=EXAMPLES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
GRADIENT = {
    "model": {"features": "zch", "hidden": 64, "bias": True},
    "order": ["improve"],
    "phases": {"improve": {"kind": "value_gradient", "updates": 2}},
}
PROGRESS = {"kind": "ppo", "updates": 300, "world": "game", "pay": "progress"}
QUICK: dict[str, Any] = yaml.safe_load((ROOT / "presets" / "quick.yaml").read_text())


@pytest.fixture
def project(tmp_path, monkeypatch):
    shutil.copytree(ROOT / "presets", tmp_path / "presets")
    shutil.copy(ROOT / "presets" / "quick.yaml", tmp_path / "params.yaml")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def wm(*arguments: str) -> tuple[int, str]:
    """Run a command; return its exit code and all it said. An exception that is not caught fails the test."""
    result = CliRunner().invoke(app, list(arguments))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert "Traceback" not in result.output
    return result.exit_code, result.output


def check(params: Any) -> tuple[int, str]:
    Path("params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    return wm("check")


def opened(key: str) -> tuple[Any, Any, str]:
    """Return a copy of quick's params, what holds a dotted key in it, and the key's last part."""
    params = node = copy.deepcopy(QUICK)
    *path, last = key.split(".")
    for part in path:
        node = node[part]
    return params, node, last


def places(node: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the paths of everything in nested params."""
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return [found for key, child in items for found in ((*path, key), *places(child, (*path, key)))]


NUMBERS = st.integers() | st.floats() | st.sampled_from([-1, 0, 10**9, 10**30, -(10**400), 1e308, float("inf"), float("nan")])
ATOMS = st.none() | st.booleans() | NUMBERS | st.text(max_size=20) | st.dates() | st.binary(max_size=5)
NAMES = st.sampled_from(
    ["doom", "doom-0", "doom-1", "doom-7", "../x", "/etc", "doom-1/../..", "a" * 300, "", "latnt", "${seed}"]
)
VALUES = st.recursive(
    ATOMS | NAMES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES | st.text(max_size=5) | st.integers(), inner, max_size=3),
    max_leaves=6,
)


@st.composite
def changed(draw: st.DrawFn, original: Any, most: int = 3) -> tuple[Any, list[tuple[Any, ...]]]:
    """Return nested values with one change or a few, and where they are."""
    changed = copy.deepcopy(original)
    paths = []
    for _ in range(draw(st.integers(1, most))):
        found = places(changed)
        if not found:
            break
        path = list(draw(st.sampled_from(found)))
        *above, last = path
        node = changed
        for key in above:
            node = node[key]
        change = draw(st.sampled_from(["replace", "replace", "delete", "add"]))
        if change == "delete":
            del node[last]
        elif change == "add" and isinstance(node, dict):
            path = [*above, draw(NAMES | st.text(max_size=8))]
            node[path[-1]] = draw(VALUES)
        else:
            node[last] = draw(VALUES)
        paths.append(tuple(path))
    return changed, paths


@fuzz
@given(changed(QUICK))
@example((QUICK | {"environments": ["random", "carracing"]}, [("environments", 0)]))
@example((QUICK | {"environments": ["seed", "carracing"]}, [("environments", 0)]))
def test_any_change_of_params_is_accepted_or_refused_with_a_message_that_says_where(project, change):
    params, paths = change
    code, said = check(params)
    assert code in (0, 2), said
    assert len(said) < 20_000, "a value that is long is cut"
    if code == 2:
        assert said.startswith("wm: params.yaml")
        assert any(str(key) in said for path in paths for key in path), (paths, said)
    assert wm("show")[0] in (0, 2)


@fuzz
@given(st.binary(max_size=60) | st.text(max_size=200).map(str.encode))
@example(b"a: " * 3 + b"b")
@example(b"[" * 3000)
@example(b"&a [*a]")
@example(b"environments: &a [*a]\nagents: *a")
@example(b"a: &a [x,x]\n" + b"".join(b"%c: &%c [*%c,*%c]\n" % (c, c, c - 1, c - 1) for c in range(98, 123)) + b"preset: *z")
@example(b"!!python/object/apply:os.system ['touch hacked']")
@example(b"a: 2020-99-99")
@example(b"seed: 1\nseed: 1")
@example(b"a: !!int ''")
@example(b"a: !!set {b, c}")
@example(b"a: 0x_")
@example(b"<<: 3")
@example(b"a: 1\n---\nb: 2")
@example(b"[" * 10**6)
@example(b"seed: " + b"1" * 5000)
@example(b"\xff\xfe\x00")
@example(b"\x00")
def test_any_bytes_in_params_are_refused_with_a_message(project, content):
    Path("params.yaml").write_bytes(content)
    code, said = wm("check")
    assert code == 2
    assert said.startswith("wm: params.yaml")
    assert len(said) < 20_000
    assert wm("show")[0] in (0, 2)
    assert not Path("hacked").exists()


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("world_models.doom-1.after", "doom-1", "in a circle"),
        ("world_models.doom-1.after", "doom-2", "in a circle"),
        ("world_models.doom-1.after", "doom-7", "is not one of `world_models`"),
        ("world_models.doom-1.after", "../doom-0", "is not one of `world_models`"),
        ("world_models.carracing-1.after", "doom-1", "is of another game"),
        ("world_models.doom-1.player", "doom-2", "in a circle"),
        ("world_models.doom-1.player", "carracing-1", "is of another game"),
        ("world_models.doom-2.explorer", "doom-2", "in a circle"),
        ("world_models.doom-2.explorer", "doom-7", "is not one of `agents`"),
        ("world_models.doom-2.explorer", "doom-0", "if the random policy plays, set explorer to the same as player"),
        ("world_models.doom-2.explorer", "doom-2", "set `doom.collect.explorer_share`"),
        ("agents.doom-1.begin", "doom-2", "in a circle"),
        ("agents.doom-1.begin", "doom-1", "in a circle"),
        ("agents.doom-1.begin", "doom-7", "is not one of `agents`"),
        ("agents.doom-1.world_model", "carracing-1", "is of another game"),
        ("agents.doom-1.controller", "drem", "is not one of `doom.controllers`"),
    ],
)
def test_lines_that_loop_or_name_what_is_not_there_are_refused_before_anything_runs(project, key, value, message):
    params, node, last = opened(key)
    node[last] = value
    code, said = check(params)
    assert code == 2
    assert message in said
    assert sorted(path.name for path in project.iterdir()) == ["params.yaml", "presets"]


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("doom.memory.model.done", False, "pay: hazard is told by M's done head"),
        ("carracing.memory.model.reward", "none", "a dream of carracing has no reward without it"),
        ("doom.controllers.learn", GRADIENT, "drought_cost is told by M's event head"),
        ("doom.controllers.learn.phases.learn.moments", {"share": 0.5, "context": 525}, "525 steps at most"),
        ("doom.controllers.learn.phases.learn", {"kind": "cmaes", "generations": 60}, "36,993 coordinates is too large"),
        ("doom.controllers.learn.selection.every", 301, "more than the 300 generations"),
        ("doom.controllers.learn.phases.learn.batch_size", 10**6, "num_envs * num_steps = 8,192 steps"),
        ("doom.controllers.learn.phases.learn.pay", "surprise", "nothing comes but what M foretells"),
        ("doom.controllers.learn.phases.learn", PROGRESS, "set `doom.vision.optimiser.warm_updates: 0`"),
        ("doom.controllers.search", GRADIENT | {"order": ["learn"], "phases": {"learn": PROGRESS}}, "doom-1 goes on from none"),
        ("doom.collect.random", {"holds": [2**63], "mean": [0.0], "scale": [1.0], "bias": [0.5]}, "collect.random.holds.0"),
        ("doom.collect.random", {"mean": [0.0] * 3, "scale": [1.0] * 3, "bias": [0.5] * 3}, "has 3 action components"),
        ("doom.memory.sequence", 1, "greater than or equal to 2"),
        ("doom.memory.model.clock", 10**30, "less than or equal to"),
        ("doom.game.frame_skip", 10**18, "less than or equal to"),
        ("doom.collect.first_episodes", 1, "takes 1,024 frames at a time, and doom-1 has 526 at most"),
    ],
)
def test_what_would_fail_after_hours_of_training_is_refused_before(project, key, value, message):
    params, node, last = opened(key)
    node[last] = value
    params["carracing"]["evaluate"]["episodes"] = 0 if last in ("sequence", "clock", "frame_skip") else 8
    code, said = check(params)
    assert code == 2
    assert message in said
    assert ("`carracing.evaluate.episodes`" in said) == (last in ("sequence", "clock", "frame_skip")), "two wrong sections"


HOSTILE = [
    "a;touch hacked",
    "$(touch hacked)",
    "`touch hacked`",
    "a/../../x",
    "a b",
    "",
    "-a",
    "a\n",
    "${seed}",
    "a" * 300 + "/",
]


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize(
    "where", ["world_models", "agents", "doom.controllers", "doom.controllers.learn.phases", "environments"]
)
def test_no_key_that_reaches_a_command_or_a_path_can_do_harm(project, where, name):
    params, node, last = opened(where)
    if where == "environments":
        node[last].append(name)
        node[name] = node["doom"]
    else:
        node[last] = {**node[last], name: next(iter(node[last].values()))}
    if last == "phases":
        node["order"] = [*node["order"], name]
    code, said = check(params)
    assert code == 2, said
    assert wm("show")[0] == 0
    assert not Path("hacked").exists()


@fuzz
@given(data=st.data())
def test_any_scores_are_shown_or_named_as_damaged(agent, data):
    path = Path("metrics/doom-1.json")
    original = scores_of("doom-1", 500)
    change, _ = data.draw(changed(original))
    raw = st.binary(max_size=30) | st.sampled_from(
        [b"[" * 10**5, b'{"a":' * 10**5, b"1" * 5000, b"\xff", b"NaN", b'{"real":1e999}']
    )
    path.write_bytes(data.draw(raw | st.just(json.dumps(change, default=str).encode())))
    try:
        code, said = wm("show")
    finally:
        path.write_text(json.dumps(original))
    assert code in (0, 1), said
    assert code == 0 or "metrics/doom-1.json" in said


@fuzz
@given(data=st.data())
def test_any_lock_is_shown_or_named_as_damaged(agent, data):
    out = {"path": "metrics/doom-1.json", "hash": "md5", "md5": "0" * 32}
    whole = {
        "schema": "2.0",
        "stages": {"evaluate@doom-1": {"cmd": "x", "deps": [out], "params": {"p": {"a": 1}}, "outs": [out]}},
    }
    change, _ = data.draw(changed(whole))
    Path("dvc.lock").write_bytes(data.draw(st.binary(max_size=30) | st.just(yaml.safe_dump(change).encode())))
    code, said = wm("show")
    assert code in (0, 1), said
    assert code == 0 or "dvc.lock" in said


KEYS = st.sampled_from(
    ["seed", "doom.vision.loss.kl_tolerance", "doom.controllers.learn.order", "agents.doom-1", "agents", "preset"]
)


@settings(fuzz, max_examples=min(EXAMPLES, 40))  # DVC reads params.yaml with its comments: half a second
@given(
    KEYS | st.text(max_size=8), st.text(max_size=12) | st.sampled_from(["[1", "${seed}", "{a: 1}", "1e-5", "null", "a,b", "'"])
)
def test_any_sweep_is_accepted_or_refused_with_a_message(repository, key, value):
    code, said = wm("sweep", f"{key}={value}", "--dry")
    assert code in (0, 2), said
    assert said.strip()


@pytest.fixture
def repository(project):
    commit_all()
    return project


WORDS = [
    "evaluate", "dream", "show", "preset", "check", "sweep", "--dry", "--target", "seed=1,2", "doom=[1", "ledger",
    "add", "write", "--run", "--study", "ablation", "track", "sync", "--json", "--episodes", "--seed", "--steps",
    "--out", "--video", "--world", "dream", "--temperature", "--force", "--help", "-h", "doom-1", "doom-0", "doom-9",
    "doom-2-game", "../doom-1", "quick", "models:/x@y", "models:/", "0", "-1", "1", "1e400", "nan",
    "99999999999999999999", "a.png", "a.mp4", "/nowhere/a.gif", ".",
]  # fmt: skip
SLOW_OR_ENDLESS = ("ui", "doctor", "--debug")


@fuzz
@given(st.lists(st.sampled_from(WORDS) | st.text(max_size=12).filter(lambda text: text not in SLOW_OR_ENDLESS), max_size=6))
@example(["dream", "doom-1", "--steps", "2", "--out", "/nowhere/a.png"])
@example(["dream", "doom-1", "--steps", "2", "--out", "."])
@example(["dream", "doom-1", "--steps", "2", "--out", "presets/.png"])
@example(["evaluate", "doom-1", "--world", "dream", "--video", "/nowhere/a.mp4"])
@example(["evaluate", "a" * 5000])
@example(["evaluate", "doom-1\0"])
@example(["preset", "../params"])
def test_any_command_line_is_done_or_refused_with_a_message(agent, words):
    code, said = wm(*words)
    assert code in (0, 1, 2), said
    assert said.strip()


@pytest.fixture
def agent(project, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///nothing.db")
    make_agent(project / "artifacts/agents/doom-1/agent")
    write_scores(project, "doom-1", 500)
    return project


def test_a_card_that_does_not_fit_the_weights_is_named(agent):
    card = Path("artifacts/agents/doom-1/agent/agent.json")
    content = json.loads(card.read_text())
    content["controller"]["bias"] = True
    card.write_text(json.dumps(content))
    code, said = wm("evaluate", "doom-1", "--world", "dream", "--episodes", "1")
    assert code == 1
    assert "agent.json" in said


@fuzz
@given(data=st.data())
def test_any_change_of_an_agents_card_is_named_as_damage_of_that_file(agent, data):
    card = Path("artifacts/agents/doom-1/agent/agent.json")
    original = json.loads(card.read_text())
    change, _ = data.draw(changed(original, most=1))
    try:
        card.write_text(json.dumps(change, default=str))
        code, said = wm("evaluate", "doom-1", "--world", "dream", "--episodes", "1")
    finally:
        card.write_text(json.dumps(original))
    assert code in (0, 1), said
    assert "params.yaml" not in said
    assert code == 0 or "agent.json" in said
