"""MLflow as a mirror of dvc.lock: one run for every artifact, however it came to be here."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from worldmodels.errors import ArtifactError, WorldModelsError
from worldmodels.storage.files import read_json
from worldmodels.storage.layout import Iteration
from worldmodels.tracking.lineage import git_tags
from worldmodels.tracking.runs import RunStore, iteration_key, stage_name
from worldmodels.tracking.store import connect

PRIMARY = {
    "initialise": "baseline.json",
    "collect": "data.json",
    "vision": "vision.safetensors",
    "encode": "latents.safetensors",
    "memory": "memory.safetensors",
    "controller": "controller.safetensors",
    "evaluate": "scores.json",
    "report": "reports",
}
"""The out whose hash names a stage's run."""
LINEAGE = {"collect": "data", "vision": "V", "memory": "M", "controller": "C"}


@dataclass(frozen=True)
class Entry:
    """One stage of dvc.lock.

    Attributes:
        stage: its name without the key.
        key: of its iteration; ``report`` for the report.
        artifact: hash of its primary out.
        params: flattened, by the names of params.yaml.
        deps: hashes of the artifacts that it read.
    """

    stage: str
    key: str
    artifact: str
    params: dict[str, Any]
    deps: dict[str, str]


@dataclass(frozen=True)
class SyncReport:
    """What a sync did."""

    entries: int
    runs_added: int
    parents_added: int
    versions_added: int

    def __str__(self) -> str:
        added = f"{self.runs_added} stage runs, {self.parents_added} iterations, {self.versions_added} model versions"
        return f"{self.entries} stages; added: {added}."


def sync(root: Path, *, registry: bool = True) -> SyncReport:
    """Make sure that MLflow has one run for every stage of dvc.lock, a parent and a model version for every iteration.

    Idempotent. What is missing is rebuilt from the artifacts; pictures of artifacts that are not checked out are left out.

    Raises:
        ArtifactError: where there is no dvc.lock.
        WorldModelsError: where MLflow cannot be reached.
    """
    entries = read_lock(root / "dvc.lock")
    connected = connect(root)
    if connected is None:
        raise WorldModelsError(
            "nothing was synchronised. Start the MLflow server, or unset MLFLOW_TRACKING_URI, and try again."
        )
    runs = RunStore(*connected)
    mirror = _Mirror(runs, root, git_tags(root))
    added = sum(mirror.stage(entry) for entry in entries if entry.key == "report")
    parents = versions = 0
    aliases: dict[str, dict[int, str]] = {}
    for key in dict.fromkeys(entry.key for entry in entries if entry.stage == "evaluate"):
        own = [entry for entry in entries if iteration_key(entry.key) == key]
        files = Iteration(key, root)
        fingerprint = _fingerprint(own)
        parent, new = mirror.iteration(key, fingerprint, own)
        parents += new
        added += sum(mirror.stage(entry, parent) for entry in own)
        if registry and (files.agent / "agent.json").exists() and files.scores.exists():
            from worldmodels.tracking.registry import find_version, model_name, register

            scores = read_json(files.scores)
            version = find_version(runs.client, model_name(scores["environment"]), fingerprint)
            if version is None:
                version = register(
                    runs.client, parent, files.agent, scores, _version_tags(scores, own, fingerprint, mirror.git)
                )
                versions += 1
            aliases.setdefault(scores["environment"], {})[scores["iteration"]] = version
    for environment, numbered in aliases.items():
        from worldmodels.tracking.registry import set_aliases

        set_aliases(runs.client, environment, numbered)
    return SyncReport(len(entries), added, parents, versions)


def read_lock(path: Path) -> list[Entry]:
    """Return the stages of a dvc.lock, in its order."""
    try:
        stages = yaml.load(path.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))["stages"]
    except FileNotFoundError:
        raise ArtifactError(f"{path} does not exist: nothing was run yet. `make repro` runs the pipeline.") from None
    except (yaml.YAMLError, KeyError, TypeError) as error:
        raise ArtifactError(f"{path} is damaged ({error}). `git checkout dvc.lock`, or delete it and `dvc repro`.") from None
    return [entry for name, content in stages.items() if (entry := _entry(name, content)) is not None]


def _entry(name: str, content: Mapping[str, Any]) -> Entry | None:
    stage, _, item = name.partition("@")
    if stage not in PRIMARY:
        return None
    key = {"initialise": f"{item}-0", "report": "report"}.get(stage, item)
    outs = {Path(out["path"]).name: out["md5"] for out in content["outs"]}
    params = {k: v for section in content.get("params", {}).values() for k, v in section.items()}
    deps = {dep["path"]: dep["md5"] for dep in content["deps"] if dep["path"].startswith("artifacts")}
    return Entry(stage, key, outs[PRIMARY[stage]], {} if stage == "report" else _flat(params), deps)


class _Mirror:
    def __init__(self, runs: RunStore, root: Path, git: dict[str, str]) -> None:
        self.runs, self.root, self.git = runs, root, git
        self._stages = runs.find(kind="stage")
        self._parents = runs.find(kind="iteration")

    def stage(self, entry: Entry, parent: str | None = None) -> int:
        """Make sure that an entry has exactly one finished run; return how many were added."""
        found = [
            run
            for run in self._stages
            if (run.data.tags.get("wm.stage"), run.data.tags.get("wm.key"), run.data.tags.get("wm.artifact"))
            == (entry.stage, entry.key, entry.artifact)
            and run.info.status == "FINISHED"
        ]
        for double in found[1:]:
            self.runs.client.delete_run(double.info.run_id)
        if found:
            return 0
        tags = {"wm.kind": "stage", "wm.stage": entry.stage, "wm.key": entry.key, "wm.artifact": entry.artifact}
        run = self.runs.create(stage_name(entry.stage, entry.key), {**tags, "wm.rebuilt": "true", **self.git}, parent)
        self.runs.log_params(run, entry.params)
        self.runs.tag(run, {f"dvc.{path}": md5 for path, md5 in entry.deps.items()})
        files = Iteration(entry.key, self.root)
        self.runs.log_metrics(run, _points(entry.stage, files))
        if entry.stage == "evaluate":
            self.runs.log_images(run, [files.reconstructions, files.filmstrip])
        self.runs.end(run, "FINISHED")
        return 1

    def iteration(self, key: str, fingerprint: str, own: list[Entry]) -> tuple[str, int]:
        """Return the parent run of an iteration, and 1 if it is new here: adopted from live runs, or made."""
        for parent in self._parents:
            if parent.data.tags.get("wm.fingerprint") == fingerprint:
                return parent.info.run_id, 0
        run_id = self.runs.open_parent(key)
        files = Iteration(key, self.root)
        lineage = {f"wm.{LINEAGE[e.stage]}": e.artifact for e in own if e.stage in LINEAGE and e.key == key}
        self.runs.tag(run_id, {"wm.fingerprint": fingerprint, "wm.open": "false", **lineage, **self.git})
        self.runs.log_params(run_id, {name: value for entry in own for name, value in entry.params.items()})
        self.runs.log_metrics(run_id, _points("evaluate", files))
        self.runs.log_images(run_id, [files.reconstructions, files.filmstrip])
        self.runs.end(run_id, "FINISHED")
        return run_id, 1


def _points(stage: str, files: Iteration) -> list[tuple[dict[str, float], int, int]]:
    """Return a stage's metrics from what it left on disk, by the names that it logs live."""
    curves = {"vision": files.vision_curve, "memory": files.memory_curve, "controller": files.controller_curve}
    if stage in curves and curves[stage].exists():
        rows = pd.read_csv(curves[stage])
        step, split = rows.columns[0], rows.columns[1]
        # In the order of the curve: MLflow shows the latest of equal times.
        return [
            ({f"{row[split]}/{name}": row[name] for name in rows.columns[2:]}, int(row[step]), i)
            for i, row in enumerate(rows.to_dict("records"))
        ]
    if stage == "evaluate" and files.scores.exists():
        scores = read_json(files.scores)
        worlds = [world for world in ("real", "dream", "baseline") if scores[world]]
        values = {f"{world}/{name}": scores[world][name] for world in worlds for name in ("mean", "std", "stderr", "n")}
        return [(values | ({} if scores["gap"] is None else {"gap": scores["gap"]}), 0, 0)]
    if stage == "initialise" and files.baseline.exists():
        summary = read_json(files.baseline)
        return [({f"baseline/{name}": summary[name] for name in ("mean", "std", "stderr", "n")}, 0, 0)]
    if stage == "collect" and files.data.exists():
        summary = read_json(files.data)
        return [({name: summary[name] for name in ("episodes", "frames", "mean_return", "mean_length")}, 0, 0)]
    return []


def _fingerprint(own: list[Entry]) -> str:
    text = "\n".join(sorted(f"{entry.stage} {entry.key} {entry.artifact}" for entry in own if entry.stage != "initialise"))
    return hashlib.sha256(text.encode()).hexdigest()


def _version_tags(scores: Mapping[str, Any], own: list[Entry], fingerprint: str, git: Mapping[str, str]) -> dict[str, str]:
    hashes = {f"wm.{LINEAGE[e.stage]}": e.artifact for e in own if e.stage in LINEAGE and e.key == scores["key"]}
    real = {f"real.{name}": f"{scores['real'][name]:g}" for name in ("mean", "stderr", "n")}
    names = {f"wm.{name}": str(scores[name]) for name in ("key", "iteration", "preset", "rules", "backend")}
    return {**names, **hashes, **real, "wm.fingerprint": fingerprint, **git}


def _flat(node: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(node, dict):
        return {prefix: node}
    return {k: v for name, child in node.items() for k, v in _flat(child, f"{prefix}.{name}" if prefix else name).items()}
