"""Remote back ends, the real ones on loopback: MLflow on PostgreSQL with artifacts on S3, and DVC's cache on S3.

The commands and settings are those of docs/track-compare-release.md.
"""

import importlib.util
import json
import os
import pwd
import re
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path

import pytest
import yaml
from lab import answers, commit, free_port, run, serving
from mlflow import MlflowClient

from worldmodels.storage.layout import STAGES

TRACKED = len([stage for stage, section in STAGES.items() if section not in ("", "recordings")])
"""Stages of a game: all but the report."""
KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}


def need(*modules):
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}. pip install 'worldmodels[dev,remote]'")


@pytest.fixture(scope="module")
def s3(tmp_path_factory):
    """An S3 API with a bucket for each of MLflow and DVC; its address."""
    need("moto.server", "boto3")
    import boto3

    port = free_port()
    address = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with serving(command, lambda: answers(address), tmp_path_factory.mktemp("s3") / "log"):
        client = boto3.client(
            "s3", endpoint_url=address, region_name="us-east-1", aws_access_key_id="test", aws_secret_access_key="test"
        )
        for bucket in ("mlflow", "dvc"):
            client.create_bucket(Bucket=bucket)
        yield client


@pytest.fixture(scope="module")
def postgres():
    """A PostgreSQL server with a database ``mlflow`` and a password; its URI."""
    need("psycopg")
    places = os.pathsep.join([os.environ["PATH"], *map(str, Path("/usr/lib/postgresql").glob("*/bin"))])  # Debian's
    binaries = {name: shutil.which(name, path=places) for name in ("initdb", "postgres")}
    if None in binaries.values():
        pytest.skip("PostgreSQL is not installed: there is no initdb. .ci/run installs it.")
    import psycopg

    # Neither below pytest's folder, which only its owner may enter, nor as root, whom PostgreSQL refuses.
    place = Path(tempfile.mkdtemp(prefix="wm-postgres-"))
    names = {entry.pw_name for entry in pwd.getpwall()}
    user = ("postgres" if "postgres" in names else "nobody") if os.getuid() == 0 else None
    (place / "password").write_text("s3cret")
    if user is not None:
        for path in (place, place / "password"):
            shutil.chown(path, user)
    init = [binaries["initdb"], "-D", str(place / "data"), "-U", "mlflow", "-A", "scram-sha-256", "-N", "-E", "UTF8"]
    done = subprocess.run(
        [*init, "--pwfile", str(place / "password")], user=user, cwd=place, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    port = free_port()

    def connect(database):
        return psycopg.connect(host="127.0.0.1", port=port, user="mlflow", password="s3cret", dbname=database)

    def ready():
        try:
            connect("postgres").close()
        except psycopg.OperationalError:
            return False
        return True

    command = [binaries["postgres"], "-D", str(place / "data"), "-h", "127.0.0.1", "-p", str(port), "-k", str(place), "-F"]
    log = place / "log"
    try:
        with serving(command, ready, log, user=user, cwd=place):
            connection = connect("postgres")
            connection.autocommit = True
            connection.cursor().execute("CREATE DATABASE mlflow")
            connection.close()
            yield f"postgresql://mlflow:s3cret@127.0.0.1:{port}/mlflow"
    finally:
        shutil.rmtree(place)


@pytest.fixture(scope="module")
def server(postgres, s3, tmp_path_factory):
    """An MLflow server on PostgreSQL, with artifacts on S3; its address."""
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    settings = {
        "MLFLOW_BACKEND_STORE_URI": postgres,
        "MLFLOW_ARTIFACTS_DESTINATION": "s3://mlflow/worldmodels",
        "MLFLOW_S3_ENDPOINT_URL": s3.meta.endpoint_url,
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    log = tmp_path_factory.mktemp("server") / "log"
    with serving(command, lambda: answers(f"{address}/health"), log, env=os.environ | KEYS | settings):
        yield address


@pytest.fixture(scope="module")
def project(iteration, tmp_path_factory):
    """One iteration."""
    return Path(shutil.copytree(iteration, tmp_path_factory.mktemp("lab") / "project"))


def stage_runs(client):
    experiment = client.get_experiment_by_name("worldmodels-doom").experiment_id
    return client.search_runs([experiment], "tags.`wm.kind` = 'stage'")


def added(text):
    """The figures in what ``wm track sync`` says: runs of stages, iterations, versions."""
    return tuple(map(int, re.search(r"(\d+) stage runs, (\d+) iterations, (\d+) model versions", text).groups()))


@pytest.fixture(scope="module")
def delivered(project, server):
    """The project after a sync to the server; what that said."""
    return project, run(project, "wm", "track", "sync", MLFLOW_TRACKING_URI=server).stdout


def test_without_its_server_the_chain_runs_and_a_later_sync_delivers(iteration, delivered, server, s3, postgres):
    said = (iteration.parent / "said").read_text()
    assert said.count("Running stage") == TRACKED + 1
    assert said.count("(MLflow at") == said.count("`wm track sync` delivers it later") == TRACKED
    assert "Traceback" not in said
    assert "s3cret" not in said
    folder, first = delivered
    assert added(first) == (TRACKED, 1, 1)
    assert "note" not in first
    assert not (folder / "mlflow.db").exists()

    import psycopg

    with psycopg.connect(postgres) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM runs WHERE status = 'FINISHED'")
        assert cursor.fetchone() == (TRACKED + 1,)  # the iteration as well
    stored = [entry["Key"] for entry in s3.list_objects_v2(Bucket="mlflow")["Contents"]]
    assert all(key.startswith("worldmodels/") for key in stored)
    names = {Path(key).name for key in stored}
    assert {"dream.png", "vision.safetensors", "memory.safetensors", "controller.safetensors", "MLmodel"} <= names


def test_the_agent_comes_back_from_the_registry_without_the_project_s_artifacts(delivered, server, tmp_path):
    shutil.copytree(delivered[0] / "src", tmp_path / "project" / "src")
    command = ("wm", "evaluate", "models:/worldmodels-doom@candidate", "--episodes", "1", "--json")
    found = json.loads(run(tmp_path / "project", *command, MLFLOW_TRACKING_URI=server).stdout)
    assert found["summary"]["n"] == 1


def test_the_picture_of_a_version_s_description_is_served(delivered, server):
    description = MlflowClient(server).get_model_version_by_alias("worldmodels-doom", "candidate").description
    address = re.search(r"!\[.*?\]\((.*?)\)", description)[1]
    with urllib.request.urlopen(f"{server}/{address}", timeout=60) as answer:
        assert answer.read() == (delivered[0] / "artifacts/agents/doom-1/film/dream.png").read_bytes()


def test_a_stage_streams_to_the_server_and_sync_adopts_what_it_streamed(delivered, server, tmp_path):
    folder = tmp_path / "project"
    shutil.copytree(delivered[0], folder)
    params = yaml.safe_load((folder / "params.yaml").read_text())
    params["doom"]["evaluate"]["temperature"] = 1.25
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    done = run(folder, "dvc", "repro", "evaluate@doom-1", "film@doom-1", WM_TRACKING="on", MLFLOW_TRACKING_URI=server)
    assert re.findall(r"Running stage '(.+?)'", done.stdout) == ["evaluate@doom-1", "film@doom-1"]
    assert "warning" not in done.stderr
    client = MlflowClient(server)
    live = {run.data.tags["wm.stage"]: run for run in stage_runs(client) if "wm.rebuilt" not in run.data.tags}
    assert live.keys() == {"evaluate", "film"}
    evaluate, film = live["evaluate"], live["film"]
    assert evaluate.data.params["doom.evaluate.temperature"] == "1.25"
    assert evaluate.info.status == film.info.status == "FINISHED"
    assert {file.path for file in client.list_artifacts(film.info.run_id, "pictures")} == {
        "pictures/agent.mp4",
        "pictures/dream.png", "pictures/temperatures.png", "pictures/traversal.png", "pictures/vision.png"
    }  # fmt: skip
    assert added(run(folder, "wm", "track", "sync", MLFLOW_TRACKING_URI=server).stdout)[0] == 0


def test_push_clone_pull_needs_no_stage_again_and_sync_adds_nothing_to_the_team_s_server(delivered, server, s3, tmp_path):
    need("dvc_s3")
    folder, _ = delivered
    run(folder, "dvc", "remote", "add", "--default", "storage", "s3://dvc/worldmodels")
    run(folder, "dvc", "remote", "modify", "storage", "endpointurl", s3.meta.endpoint_url)
    commit(folder, "Artifacts are on S3")
    run(folder, "dvc", "push", **KEYS)
    assert s3.list_objects_v2(Bucket="dvc")["KeyCount"] > len(STAGES)

    clone = tmp_path / "clone"
    run(tmp_path, "git", "clone", "-q", str(folder), str(clone))
    assert not (clone / "artifacts").exists()
    run(clone, "dvc", "pull", **KEYS)
    assert "Running stage" not in run(clone, "dvc", "repro").stdout
    assert (clone / "dvc.lock").read_bytes() == (folder / "dvc.lock").read_bytes()
    before = len(stage_runs(MlflowClient(server)))
    assert added(run(clone, "wm", "track", "sync", MLFLOW_TRACKING_URI=server).stdout) == (0, 0, 0)
    assert len(stage_runs(MlflowClient(server))) == before
    said = run(clone, "wm", "track", "sync").stdout
    assert added(said) == (TRACKED, 1, 1)
    assert "note" not in said
