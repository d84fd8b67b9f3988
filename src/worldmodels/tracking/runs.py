"""The runs of this project in MLflow: a parent for every iteration and every experiment, a child for every stage.

An iteration is a world model and all agents that are based on it. Tags: ``wm.kind`` (iteration, experiment, stage),
``wm.key``, ``wm.stage``; ``wm.artifact`` of a stage's run is the hash of the output that stands for it, the same as in
dvc.lock; ``wm.fingerprint`` of an iteration is the hash over those of its world model, and ``wm.current`` says whether that
world model is the one in dvc.lock. A parent is ``wm.open`` until all its agents are evaluated. ``wm.computation`` of a stage's
run that is or was live names what it computes, ``wm.host`` and ``wm.process`` where; one that was cut off and went on is
``wm.continued``. An experiment and its stages have ``dvc.experiment``, its name.
"""

import json
import math
import os
import shutil
import socket
import tempfile
from collections.abc import Container, Iterable, Mapping
from pathlib import Path
from typing import Any

import psutil
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, Metric, Param, Run, RunTag

from worldmodels.storage.layout import STAGES
from worldmodels.tracking.points import tidy

MOST_METRICS = 1000
MOST_PARAMS = 100
"""What one request to MLflow may hold."""
CLOCK_SECONDS = 60.0
"""How far two readings of when a process began may differ: the clock may be set in between."""


class RunStore:
    """Finds and writes runs; ``experiment`` is an experiment's id."""

    def __init__(self, client: MlflowClient, experiment: str) -> None:
        self.client, self.experiment = client, experiment

    def find(self, *, experiment: str | None = None, **tags: str) -> list[Run]:
        """Return all runs with these ``wm`` tags, of a DVC experiment if one is named, newest first."""
        terms = {f"wm.{name}": value for name, value in tags.items()} | ({"dvc.experiment": experiment} if experiment else {})
        query = " and ".join(f"tags.`{name}` = '{value}'" for name, value in terms.items())
        found: list[Run] = []
        token = None
        while True:
            page = self.client.search_runs([self.experiment], query, max_results=1000, page_token=token)
            found += page
            token = page.token
            if not token:
                return found

    def create(self, name: str, tags: Mapping[str, str], parent: str | None = None) -> str:
        """Start a run; return its id."""
        own = {"mlflow.runName": name, **tags} | ({"mlflow.parentRunId": parent} if parent else {})
        return self.client.create_run(self.experiment, tags=own).info.run_id

    def begin_live(
        self,
        stage: str,
        key: str,
        params: Mapping[str, Any],
        tags: Mapping[str, str],
        *,
        world_model: str | None,
        computation: str = "",
    ) -> str:
        """Start a stage's run below its iteration's, or go on with one of the same computation that was cut off.

        Args:
            stage: its name.
            key: of the world model or the agent.
            params: flattened, by the names of params.yaml.
            tags: of the code and of DVC's experiment.
            world_model: key of the iteration; None for a stage that belongs to none.
            computation: names what the stage computes.
        """
        self.end_killed(stage=stage, key=key)
        experiment = tags.get("dvc.experiment")
        parent: str | None = None
        if experiment:
            parent = self.open_experiment(experiment)
        elif world_model is not None:
            parent = self.open_parent(world_model, current=STAGES[stage] != "world_models")
        if parent is not None:
            self.client.update_run(parent, status="RUNNING")
        own = {"wm.kind": "stage", "wm.stage": stage, "wm.key": key, "wm.computation": computation}
        own |= {"wm.host": socket.gethostname(), "wm.process": _process_name(os.getpid()), **tags}
        for run in self.find(kind="stage", stage=stage, key=key, computation=computation) if computation else ():
            same = run.data.tags.get("dvc.experiment") == experiment
            if same and run.info.status in ("KILLED", "FAILED"):
                run_id = run.info.run_id
                self.client.update_run(run_id, status="RUNNING")
                self.tag(run_id, own | {"wm.continued": "true"} | ({"mlflow.parentRunId": parent} if parent else {}))
                return run_id
        run_id = self.create(stage_name(stage, key), own, parent)
        self.log_params(run_id, params)
        return run_id

    def end_killed(self, **tags: str) -> None:
        """End the stages' runs with these ``wm`` tags whose process is gone."""
        for run in self.find(kind="stage", **tags):
            if run.info.status == "RUNNING" and not self.is_alive(run):
                self.end(run.info.run_id, "KILLED")

    def is_alive(self, run: Run) -> bool:
        """Return whether the process of a run that has not ended may still be at work.

        The process of another machine may, if both use one server; a database on this machine is this machine's own.
        """
        if run.info.status != "RUNNING":
            return False
        if run.data.tags.get("wm.host") != socket.gethostname():
            return str(self.client.tracking_uri).startswith("http")
        return _is_running(run.data.tags.get("wm.process", ""))

    def open_parent(self, key: str, *, current: bool) -> str:
        """Return the open parent of an iteration; made if there is none. It is RUNNING while one of its stages is.

        Args:
            key: of its world model.
            current: whether the world model of dvc.lock will do, whose run is opened again; else one that is not known yet.
        """
        for run in self.find(kind="iteration", key=key, open="true"):
            if current or "wm.fingerprint" not in run.data.tags:
                return run.info.run_id
        for run in self.find(kind="iteration", key=key, current="true") if current else ():
            self.tag(run.info.run_id, {"wm.open": "true"})
            return run.info.run_id
        return self.create(key, {"wm.kind": "iteration", "wm.key": key, "wm.open": "true"})

    def open_experiment(self, name: str) -> str:
        """Return the run of an experiment that is not complete; made if there is none."""
        found = self.find(kind="experiment", open="true", experiment=name)
        tags = {"wm.kind": "experiment", "wm.open": "true", "dvc.experiment": name}
        return found[0].info.run_id if found else self.create(name, tags)

    def rest(self) -> None:
        """Show of every open parent below which nothing is at work that it waits."""
        at_work = {run.data.tags.get("mlflow.parentRunId") for run in self.find(kind="stage") if self.is_alive(run)}
        for run in self.find(open="true"):
            if run.info.run_id not in at_work and run.info.status == "RUNNING":
                self.client.update_run(run.info.run_id, status="SCHEDULED")

    def logged_points(self, run_id: str) -> set[tuple[str, int]]:
        """Return the names and steps of the metrics that a run holds; not the machine's, which have steps of their own."""
        names = [name for name in self.client.get_run(run_id).data.metrics if not name.startswith("system/")]
        return {(name, point.step) for name in names for point in self.client.get_metric_history(run_id, name)}

    def tag(self, run_id: str, tags: Mapping[str, str]) -> None:
        """Set tags."""
        if tags:
            self.client.log_batch(run_id, tags=[RunTag(name, str(value)) for name, value in tags.items()])

    def log_params(self, run_id: str, params: Mapping[str, Any]) -> None:
        """Log params, by the names of params.yaml."""
        rows = [Param(tidy(name), str(value)) for name, value in sorted(params.items())]
        for i in range(0, len(rows), MOST_PARAMS):
            self.client.log_batch(run_id, params=rows[i : i + MOST_PARAMS])

    def log_metrics(
        self,
        run_id: str,
        points: Iterable[tuple[Mapping[str, float], int, int]],
        *,
        without: Container[str] = (),
        logged: Container[tuple[str, int]] = (),
    ) -> None:
        """Log points (metrics, step, time in ms).

        Values that are no numbers, metrics ``without``, and points that are ``logged`` already (name, step) are left out.
        """
        rows = [
            Metric(name, float(value), time, step)
            for values, step, time in points
            for name, value in values.items()
            if math.isfinite(value) and name not in without and (name, step) not in logged
        ]
        for i in range(0, len(rows), MOST_METRICS):
            self.client.log_batch(run_id, metrics=rows[i : i + MOST_METRICS])

    def log_inputs(self, run_id: str, data: Mapping[str, str]) -> None:
        """Say what a run read: path -> DVC hash, which is the data set's digest."""
        inputs = [
            DatasetInput(Dataset(name=path, digest=digest, source_type="dvc", source=json.dumps({"path": path, "md5": digest})))
            for path, digest in sorted(data.items())
        ]
        self.client.log_inputs(run_id, datasets=inputs)

    def log_pictures(self, run_id: str, folder: Path, place: str = "pictures") -> None:
        """Log the files of a folder of pictures and films, of which any may be a link into DVC's cache."""
        with tempfile.TemporaryDirectory() as copies:
            plain = shutil.copytree(folder, f"{copies}/plain")
            self.client.log_artifacts(run_id, str(plain), place)

    def holds(self, run_id: str, folder: Path, place: str = "pictures") -> bool:
        """Return whether a run has files of these names already."""
        there = {Path(file.path).name for file in self.client.list_artifacts(run_id, place)}
        return {file.name for file in folder.iterdir()} <= there

    def end(self, run_id: str, status: str) -> None:
        """End a run: FINISHED, FAILED or KILLED."""
        self.client.set_terminated(run_id, status)


def _process_name(pid: int) -> str:
    """Return a name of a process that no later one has: its number, and when it began; empty if it has ended."""
    try:
        process = psutil.Process(pid)
        return "" if process.status() == psutil.STATUS_ZOMBIE else f"{pid}@{process.create_time():.0f}"
    except psutil.NoSuchProcess:
        return ""


def _is_running(name: str) -> bool:
    """Return whether the process with this name runs. When it began is known to a second or so, as clocks are set."""
    pid, _, began = name.partition("@")
    now = _process_name(int(pid)) if pid else ""
    return now != "" and abs(float(now.partition("@")[2]) - float(began)) < CLOCK_SECONDS


def stage_name(stage: str, key: str) -> str:
    """Return a stage run's name."""
    return stage if stage == key else f"{stage} {key}"
