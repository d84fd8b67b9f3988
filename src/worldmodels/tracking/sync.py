"""MLflow as a mirror of dvc.lock: one run for every artifact, however it came to be here."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from worldmodels.errors import ArtifactError
from worldmodels.storage.files import read_json
from worldmodels.storage.layout import ALONE, PRIMARY
from worldmodels.tracking.lineage import artifact_hash, lock_tags
from worldmodels.tracking.points import points
from worldmodels.tracking.store import lock, opened

if TYPE_CHECKING:
    from mlflow.entities import Run

    from worldmodels.tracking.runs import RunStore

METRICS = {
    "initialise": "baseline.json",
    "collect": "data.json",
    "vision": "vision.csv",
    "memory": "memory.csv",
    "calibrate": "calibration.csv",
    "controller": "controller.csv",
    "evaluate": "scores.json",
    "trial": "trial.json",
}
"""The out that holds a stage's metrics."""
PICTURES = {"calibrate": ("calibration.png",), "evaluate": ("vision.png", "dream.png", "traversal.png", "temperatures.png")}
DATA = ("data.json", "latents.safetensors")
"""What a stage reads as data: MLflow shows it as the run's data set."""
LINEAGE = {"collect": "data", "vision": "V", "memory": "M", "controller": "C"}


@dataclass(frozen=True)
class Entry:
    """One stage of dvc.lock.

    Attributes:
        stage: its name without the key.
        key: of its iteration, or of the trial; ``report`` for the report.
        params: flattened, by the names of params.yaml.
        deps: path -> hash of the artifacts that it read.
        outs: path -> hash of what it made.
    """

    stage: str
    key: str
    params: dict[str, Any]
    deps: dict[str, str]
    outs: dict[str, str]

    @property
    def artifact(self) -> str:
        """Hash of its primary out."""
        return self.outs[self.path(PRIMARY[self.stage])]

    def path(self, name: str) -> str:
        """Return the path of the out that is called so."""
        return next(path for path in self.outs if Path(path).name == name)


@dataclass(frozen=True)
class SyncReport:
    """What a sync did.

    Attributes:
        entries: stages in dvc.lock.
        runs_added: of stages.
        parents_added: runs of iterations, made or adopted from live ones.
        versions_added: of registered models.
        notes: what was left out, and why.
    """

    entries: int
    runs_added: int
    parents_added: int
    versions_added: int
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        added = f"{self.runs_added} stage runs, {self.parents_added} iterations, {self.versions_added} model versions"
        return "\n".join([f"{self.entries} stages; added: {added}.", *(f"note: {note}" for note in self.notes)])


def sync(root: Path, *, registry: bool = True) -> SyncReport:
    """Make sure that MLflow has one run for every stage of dvc.lock, a parent and a model version for every iteration.

    Idempotent. What is missing is rebuilt from the artifacts; those that are not on disk, or are not those of dvc.lock, are
    left out with a note, and come with the next sync after ``dvc checkout``.

    Raises:
        ArtifactError: where there is no dvc.lock.
        StoreError: where MLflow cannot be used.
    """
    entries = read_lock(root / "dvc.lock")
    with opened(root) as (client, experiment), lock(root):
        from worldmodels.tracking.runs import RunStore, iteration_key

        keys = sorted({iteration_key(entry.key) for entry in entries if entry.stage not in ALONE}, key=_order)
        mirror = _Mirror(RunStore(client, experiment), root, entries)
        for key in keys:
            mirror.iteration(
                key, [e for e in entries if e.stage not in ALONE and iteration_key(e.key) == key], registry=registry
            )
        for entry in entries:
            if entry.stage in ALONE:
                mirror.stage(entry, None)
        mirror.runs.end_killed()
        mirror.runs.rest()
        mirror.alias()
    return SyncReport(len(entries), mirror.runs_added, mirror.parents_added, mirror.versions_added, tuple(mirror.notes))


def read_lock(path: Path) -> list[Entry]:
    """Return the stages of a dvc.lock, in its order.

    Raises:
        ArtifactError: where it is missing or damaged.
    """
    try:
        return parse_lock(path.read_text())
    except FileNotFoundError:
        raise ArtifactError(f"{path} does not exist: nothing was run yet. `make repro` runs the pipeline.") from None
    except (yaml.YAMLError, KeyError, TypeError, AttributeError, StopIteration) as error:
        raise ArtifactError(f"{path} is damaged ({error}). `git checkout dvc.lock`, or delete it and `dvc repro`.") from None


class _LockLoader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Reads numbers as DVC writes them: 2e-05 is one in YAML 1.2, a string in 1.1."""


_LockLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def parse_lock(text: str) -> list[Entry]:
    """Return the stages in the text of a dvc.lock, in its order; what is damaged raises what Python says of it."""
    stages = yaml.load(text, Loader=_LockLoader)["stages"]
    return [_entry(name, content) for name, content in stages.items() if name.partition("@")[0] in PRIMARY]


def _entry(name: str, content: Mapping[str, Any]) -> Entry:
    stage, _, item = name.partition("@")
    key = {"initialise": f"{item}-0", "report": "report"}.get(stage, item)
    outs = {out["path"]: out["md5"] for out in content["outs"]}
    params = {k: v for section in content.get("params", {}).values() for k, v in section.items()}
    deps = {dep["path"]: dep["md5"] for dep in content.get("deps", []) if dep["path"].startswith("artifacts")}
    entry = Entry(stage, key, {} if stage == "report" else _flat(params), deps, outs)
    assert entry.artifact
    return entry


class _Mirror:
    def __init__(self, runs: "RunStore", root: Path, entries: list[Entry]) -> None:
        self.runs, self.root = runs, root
        self.git = lock_tags(root)
        self.locked = {path: md5 for entry in entries for path, md5 in entry.outs.items()}
        self.notes: list[str] = []
        self.runs_added = self.parents_added = self.versions_added = 0
        self._versions: dict[str, dict[int, str]] = {}
        self._stages = runs.find(kind="stage")
        self._parents = runs.find(kind="iteration")
        self._children = {run.info.run_id: run.data.tags.get("mlflow.parentRunId") for run in self._stages}

    def iteration(self, key: str, own: list[Entry], *, registry: bool) -> None:
        """Mirror an iteration: its parent run, its stages' runs, and, where it is complete, its model version."""
        complete = any(entry.stage == "evaluate" for entry in own)
        fingerprint = _fingerprint(own)
        parent = self._parent(key, fingerprint if complete else None)
        for entry in own:
            self.stage(entry, parent)
        if complete:
            self._close(key, parent, fingerprint, own)
            if registry:
                self._register(parent, fingerprint, own)

    def stage(self, entry: Entry, parent: str | None) -> None:
        """Make sure that an entry has exactly one finished run, below its parent, with what is on disk of it."""
        found = [run for run in self._stages if _is_of(run, entry) and not self.runs.is_alive(run)]
        found = [run for run in found if run.info.status != "FAILED"]
        found.sort(key=lambda run: run.data.tags.get("mlflow.parentRunId") != parent)  # an experiment may have made the same
        found.sort(key=lambda run: (run.info.status != "FINISHED", "wm.rebuilt" in run.data.tags))  # newest first within
        for double in found[1:]:
            self.runs.client.delete_run(double.info.run_id)
            del self._children[double.info.run_id]
        if found:
            run_id, known = found[0].info.run_id, found[0].data
            if known.tags.get("mlflow.parentRunId") != parent and parent is not None:
                self.runs.tag(run_id, {"mlflow.parentRunId": parent})
        else:
            run_id, known = self._rebuild(entry, parent), None
        self._children[run_id] = parent
        self.runs.log_params(run_id, {k: v for k, v in entry.params.items() if known is None or k not in known.params})
        figures = self._on_disk(entry.path(METRICS[entry.stage])) if entry.stage in METRICS else None
        if figures is not None:
            whole = known is not None and "wm.continued" not in known.tags
            # What was on its way when a stage was killed is lost to MLflow, but not to the curve on disk.
            self.runs.log_metrics(
                run_id,
                points(entry.stage, figures),
                without=known.metrics if known and whole else (),
                logged=() if known is None or whole else self.runs.logged_points(run_id),
            )
        self._pictures(run_id, entry)
        data = {path: md5 for path, md5 in entry.deps.items() if Path(path).name in DATA}
        if data and not (found and found[0].inputs and found[0].inputs.dataset_inputs):
            self.runs.log_inputs(run_id, data)
        if known is None or found[0].info.status != "FINISHED":
            self.runs.end(run_id, "FINISHED")

    def _rebuild(self, entry: Entry, parent: str | None) -> str:
        from worldmodels.tracking.runs import stage_name

        tags = {"wm.kind": "stage", "wm.stage": entry.stage, "wm.key": entry.key, "wm.artifact": entry.artifact}
        lineage = {f"dvc.{path}": md5 for path, md5 in entry.deps.items()}
        self.runs_added += 1
        return self.runs.create(stage_name(entry.stage, entry.key), tags | lineage | {"wm.rebuilt": "true"} | self.git, parent)

    def _parent(self, key: str, fingerprint: str | None) -> str:
        """Return the iteration's run: the one that was made of these artifacts, else the live one, else a new one."""
        for run in self._parents:
            if fingerprint is not None and run.data.tags.get("wm.fingerprint") == fingerprint:
                return run.info.run_id
        return self.runs.open_parent(key)

    def _close(self, key: str, parent: str, fingerprint: str, own: list[Entry]) -> None:
        """Complete an iteration's run with the figures that matter, and leave no other run of it that is empty or open."""
        others = {run.info.run_id: run.data.tags for run in self._parents if run.data.tags.get("wm.key") == key}
        tags = others.pop(parent, {})
        evaluate = next(entry for entry in own if entry.stage == "evaluate")
        scores = self._on_disk(evaluate.path("scores.json"))
        if tags.get("wm.fingerprint") != fingerprint:
            lineage = {f"wm.{LINEAGE[e.stage]}": e.artifact for e in own if e.stage in LINEAGE and e.key == key}
            git = {} if "git.commit" in tags else self.git
            self.runs.tag(parent, {"wm.fingerprint": fingerprint, "wm.open": "false", **lineage, **git})
            self.runs.log_params(parent, {name: value for entry in own for name, value in entry.params.items()})
            self.runs.end(parent, "FINISHED")
            self.parents_added += 1
        if scores is not None:
            logged = next((run.data.metrics for run in self._parents if run.info.run_id == parent), ())
            self.runs.log_metrics(parent, points("evaluate", scores), without=logged)
        self._pictures(parent, evaluate)
        if tags.get("wm.current") != "true":
            self.runs.tag(parent, {"wm.current": "true"})
        for other, told in others.items():
            if other not in self._children.values() and "wm.fingerprint" not in told:
                self.runs.client.delete_run(other)  # a run again of what was there already: its stages' runs have moved
            elif told.get("wm.current") == "true":
                self.runs.tag(other, {"wm.current": "false"})

    def _pictures(self, run_id: str, entry: Entry) -> None:
        names = PICTURES.get(entry.stage, ())
        there = set() if not names else {Path(file.path).name for file in self.runs.client.list_artifacts(run_id, "pictures")}
        found = [self._on_disk(entry.path(name)) for name in names if name not in there]
        self.runs.log_images(run_id, [path for path in found if path is not None])

    def _register(self, parent: str, fingerprint: str, own: list[Entry]) -> None:
        from worldmodels.tracking.registry import find_version, model_name, register

        evaluate, controller = (next(entry for entry in own if entry.stage == stage) for stage in ("evaluate", "controller"))
        environment, _, number = evaluate.key.rpartition("-")
        version = find_version(self.runs.client, model_name(environment), fingerprint)
        if version is None:
            scores_path = self._on_disk(evaluate.path("scores.json"))
            parts = {
                "agent": self._on_disk(controller.path("agent")),
                "returns": self._on_disk(evaluate.path("returns.parquet")),
                "picture": self._on_disk(evaluate.path("dream.png")),
            }
            there = {label: path for label, path in parts.items() if path is not None}
            if scores_path is None or len(there) < len(parts):
                return
            scores = read_json(scores_path)
            tags = _version_tags(scores, own, fingerprint, self.git)
            version = register(self.runs.client, parent, there, scores, tags)
            self.versions_added += 1
        self._versions.setdefault(environment, {})[int(number)] = version

    def alias(self) -> None:
        """Point the registry's aliases at the versions of this dvc.lock."""
        for environment, numbered in self._versions.items():
            from worldmodels.tracking.registry import set_aliases

            set_aliases(self.runs.client, environment, numbered)

    def _on_disk(self, path: str) -> Path | None:
        """Return the path of an artifact, if what is there is what dvc.lock names."""
        file = self.root / path
        if file.exists() and artifact_hash(file) == self.locked[path]:
            return file
        note = f"{path} is {'not the one of dvc.lock' if file.exists() else 'not on disk'}: left out (`dvc checkout` brings it)"
        if note not in self.notes:
            self.notes.append(note)
        return None


def _is_of(run: "Run", entry: Entry) -> bool:
    tags = run.data.tags
    return (tags.get("wm.stage"), tags.get("wm.key"), tags.get("wm.artifact")) == (entry.stage, entry.key, entry.artifact)


def _order(key: str) -> tuple[str, int]:
    environment, _, number = key.rpartition("-")
    return environment, int(number)


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
