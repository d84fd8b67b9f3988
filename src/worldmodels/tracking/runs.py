"""The runs of a game in MLflow: a parent for every iteration and every experiment, a child for every stage.

An iteration is a world model and all agents that are based on it. Tags: ``wm.kind`` (iteration, experiment, stage; seeds, see
``several.py``), ``wm.key``, ``wm.stage``; ``wm.artifact`` of a stage's run is the hash of the output that stands for it, the
same as in dvc.lock; an iteration has the hashes of its data, V and M, and ``wm.current`` says whether dvc.lock has the same. A
parent is ``wm.open`` until all its agents are evaluated. ``wm.seed`` is the chain's: several may be tracked on one server, each
from a folder of its own. ``wm.computation`` of a stage's run that is or was live names what it computes, ``wm.host`` and
``wm.process`` where; one that was cut off and went on is ``wm.continued``. An experiment and its stages have
``dvc.experiment``, its name.
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

import mlflow
import psutil
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, Run, RunTag
from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT

from worldmodels.storage.layout import STAGES
from worldmodels.tracking.points import LETTERS, Point, tidy

NOTE = "mlflow.note.content"
"""Tag of a run that MLflow shows as its description, in Markdown."""
TRAINING, EVALUATION = "training", "evaluation"
"""What a run reads a data set for."""
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
        return mlflow.search_runs([self.experiment], query, output_format="list")

    def create(self, name: str, tags: Mapping[str, str], parent: str | None = None) -> str:
        """Start a run; return its id."""
        own = {"mlflow.runName": name, **tags, **({"mlflow.parentRunId": parent} if parent else {})}
        return self.client.create_run(self.experiment, tags=own).info.run_id

    def create_stage(self, stage: str, key: str, tags: Mapping[str, str], parent: str | None) -> str:
        """Start a stage's run; return its id."""
        own = {"wm.kind": "stage", "wm.stage": stage, "wm.key": key} | ({"learns": LETTERS[stage]} if stage in LETTERS else {})
        return self.create(key if stage == "initialise" else f"{stage} {key}", {**own, **tags}, parent)

    def begin_live(
        self, stage: str, key: str, params: Mapping[str, Any], tags: Mapping[str, str], world_model: str, computation: str
    ) -> str:
        """Start a stage's run below its iteration's, or go on with one of the same computation that was cut off.

        See ``live.stage_run``; ``tags`` are of the code, the chain's seed and DVC's experiment.
        """
        self.end_killed(stage=stage, key=key)
        experiment, seed, section, parent = tags.get("dvc.experiment"), tags["wm.seed"], STAGES[stage], None
        if experiment:
            parent = self.open_experiment(experiment)
        elif section == "world_models" or (section == "agents" and world_model):
            parent = self.open_parent(world_model or key, seed, current=section == "agents")
        if parent is not None:
            self.client.update_run(parent, status="RUNNING")
        process = f"{os.getpid()}@{psutil.Process().create_time():.0f}"
        own = {"wm.computation": computation, "wm.host": socket.gethostname(), "wm.process": process, **tags}
        for run in self.find(kind="stage", stage=stage, key=key, computation=computation) if computation else ():
            if run.data.tags.get("dvc.experiment") == experiment and run.info.status in ("KILLED", "FAILED"):
                self.client.update_run(run.info.run_id, status="RUNNING")
                self.tag(run.info.run_id, own | {"wm.continued": "true"} | ({"mlflow.parentRunId": parent} if parent else {}))
                return run.info.run_id
        run_id = self.create_stage(stage, key, own, parent)
        sections = (stage, f"{stage}s")
        self.log_params(run_id, {name: value for name, value in params.items() if name.split(".")[1] in sections})
        return run_id

    def end_killed(self, **tags: str) -> None:
        """End the stages' runs with these ``wm`` tags whose process is gone."""
        for run in self.find(kind="stage", **tags):
            if run.info.status == "RUNNING" and not self.is_alive(run):
                self.client.set_terminated(run.info.run_id, "KILLED")

    def is_alive(self, run: Run) -> bool:
        """Return whether the process of a run that has not ended may still be at work.

        The process of another machine may, if both use one server; a database on this machine is this machine's own.
        """
        if run.info.status != "RUNNING":
            return False
        if run.data.tags.get("wm.host") != socket.gethostname():
            return str(self.client.tracking_uri).startswith("http")
        return is_running(run.data.tags.get("wm.process", ""))

    def open_parent(self, key: str, seed: str, *, current: bool) -> str:
        """Return the open run of an iteration, by the key of its world model and the chain's seed; made if there is none.

        ``current``: the run of dvc.lock's world model will do, which is opened again; else only one of no known world model.
        """
        named = [(run.info.run_id, run.data.tags) for run in self.find(kind="iteration", key=key)]
        own = [(run_id, tags) for run_id, tags in named if tags.get("wm.seed", seed) == seed]
        for run_id, tags in own:
            if tags.get("wm.open") == "true" and (current or "wm.current" not in tags):
                return run_id
        for run_id, tags in own:
            if current and tags.get("wm.current") == "true":
                self.tag(run_id, {"wm.open": "true"})
                return run_id
        return self.create(key, {"wm.kind": "iteration", "wm.key": key, "wm.seed": seed, "wm.open": "true"})

    def open_experiment(self, name: str) -> str:
        """Return the run of an experiment that is not complete; made if there is none."""
        found = self.find(kind="experiment", open="true", experiment=name)
        note = f"An experiment of DVC. `dvc exp apply {name}` takes it over into the workspace."
        tags = {"wm.kind": "experiment", "wm.open": "true", "dvc.experiment": name, NOTE: note}
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
        self.client.log_batch(run_id, tags=[RunTag(name, value) for name, value in tags.items()])

    def log_params(self, run_id: str, params: Mapping[str, Any], known: Container[str] = ()) -> None:
        """Log params by the names of params.yaml, without those that are ``known``."""
        rows = [Param(tidy(name), str(value)) for name, value in sorted(params.items()) if name not in known]
        self.client.log_batch(run_id, params=rows)

    def log_metrics(
        self, run_id: str, points: Iterable[Point], *, without: Container[str] = (), logged: Container[tuple[str, int]] = ()
    ) -> None:
        """Log points, without infinite values, metrics ``without``, and those ``logged`` already (name, step)."""
        rows = [
            Metric(name, value, time, step)
            for values, step, time in points
            for name, value in values.items()
            if math.isfinite(value) and name not in without and (name, step) not in logged
        ]
        self.client.log_batch(run_id, metrics=rows)

    def log_inputs(self, run_id: str, data: Mapping[str, str], context: str = TRAINING) -> None:
        """Say what a run read: path -> DVC hash, the data set's digest. It is called by its key: ``doom-2 latents``."""
        inputs = [
            data_set(f"{Path(path).parent.name} {Path(path).stem}", digest, "dvc", {"path": path, "md5": digest}, context)
            for path, digest in sorted(data.items())
        ]
        self.client.log_inputs(run_id, datasets=inputs)

    def log_pictures(self, run_id: str, folder: Path, place: str = "pictures") -> None:
        """Log the files of a folder of pictures and films, of which any may be a link into DVC's cache."""
        with tempfile.TemporaryDirectory() as copies:
            self.client.log_artifacts(run_id, str(shutil.copytree(folder, f"{copies}/plain")), place)


def data_set(name: str, digest: str, kind: str, source: Mapping[str, Any], context: str) -> DatasetInput:
    """Return a data set as a run reads it. ``source``: where it is from; ``context``: ``TRAINING`` or ``EVALUATION``."""
    return DatasetInput(Dataset(name, digest, kind, json.dumps(source)), [InputTag(MLFLOW_DATASET_CONTEXT, context)])


def is_running(name: str) -> bool:
    """Return whether a process runs that is named by its number and when it began: a later one may have the number."""
    pid, _, began = name.partition("@")
    try:
        process = psutil.Process(int(pid))
        same = abs(process.create_time() - float(began)) < CLOCK_SECONDS
        return same and process.status() != psutil.STATUS_ZOMBIE
    except (ValueError, psutil.Error):
        return False
