"""MLflow as a mirror of dvc.lock: one run for every artifact, however it came to be here."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from worldmodels.storage.layout import STAGES, WorldModelFiles
from worldmodels.tracking.dvclock import DvcLock, Entry, read_lock
from worldmodels.tracking.lineage import artifact_hash, lock_tags
from worldmodels.tracking.points import points
from worldmodels.tracking.store import lock, opened

if TYPE_CHECKING:
    from mlflow.entities import Run

    from worldmodels.tracking.runs import RunStore

DATA = ("data.json", "latents.safetensors")
"""What a stage reads as data: MLflow shows it as the run's data set."""
LINEAGE = {"data": "data.json", "V": "vision.safetensors", "M": "memory.safetensors"}
"""What of a world model an agent is made of, by the name of its tag."""
NO_STUDY = "none"
"""`study` of an agent that is no part of a comparison."""


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
    """Make sure that MLflow has a run for every stage of dvc.lock, a parent for every world model, a version for every agent.

    Idempotent. What is missing is rebuilt from the artifacts; those that are not on disk, or are not those of dvc.lock, are
    left out with a note, and come with the next sync after ``dvc checkout``.

    Raises:
        ArtifactError: there is no dvc.lock, or it is damaged.
        StoreError: MLflow cannot be used.
    """
    known = DvcLock(read_lock(root / "dvc.lock"))
    with opened(root) as (client, experiment), lock(root):
        from worldmodels.tracking.runs import RunStore

        mirror = _Mirror(RunStore(client, experiment), root, known)
        for key in known.world_models():
            mirror.iteration(key)
        for entry in known.entries:
            if known.parent(entry) is None:
                mirror.stage(entry, None)
        mirror.runs.end_killed()
        mirror.runs.rest()
        if registry:
            from worldmodels.tracking.versions import register_agents

            added, notes = register_agents(client, known, mirror.parents, mirror.on_disk, mirror.git)
            mirror.notes += notes
            mirror.versions_added = added
    return SyncReport(len(known.entries), mirror.runs_added, mirror.parents_added, mirror.versions_added, tuple(mirror.notes))


class _Mirror:
    """Writes runs.

    Attributes:
        parents: world model -> id of its iteration's run.
    """

    def __init__(self, runs: "RunStore", root: Path, known: DvcLock) -> None:
        self.runs, self.root, self.known = runs, root, known
        self.git = lock_tags(root)
        self.notes: list[str] = []
        self.parents: dict[str, str] = {}
        self.runs_added = self.parents_added = self.versions_added = 0
        self._stages = runs.find(kind="stage")
        self._parents = runs.find(kind="iteration")
        self._children = {run.info.run_id: run.data.tags.get("mlflow.parentRunId") for run in self._stages}

    def iteration(self, key: str) -> None:
        """Mirror an iteration: its parent run and the runs of its stages, those of agents among them."""
        own = [entry for entry in self.known.entries if self.known.parent(entry) == key]
        made = [self.known.get(stage, key) for stage, section in STAGES.items() if section == "world_models"]
        whole = [entry for entry in made if entry is not None]
        fingerprint = _fingerprint(whole) if len(whole) == len(made) else None
        parent = self.parents[key] = self._parent(key, fingerprint)
        for entry in own:
            self.stage(entry, parent)
        if fingerprint is not None:
            self._settle(key, parent, fingerprint, whole, own)

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
            moves = (entry.stage, entry.key) in self.known.holding  # what is to be run again stays where it was
            if known.tags.get("mlflow.parentRunId") != parent and parent is not None and moves:
                self.runs.tag(run_id, {"mlflow.parentRunId": parent})
                self._children[run_id] = parent
        else:
            run_id, known = self._rebuild(entry, parent), None
            self._children[run_id] = parent
        self.runs.log_params(run_id, {k: v for k, v in entry.params.items() if known is None or k not in known.params})
        figures = _metrics_file(entry)
        on_disk = None if figures is None else self.on_disk(figures)
        if on_disk is not None:
            whole = known is not None and "wm.continued" not in known.tags
            # What was on its way when a stage was killed is lost to MLflow, but not to the curve on disk.
            self.runs.log_metrics(
                run_id,
                points(on_disk),
                without=known.metrics if known and whole else (),
                logged=() if known is None or whole else self.runs.logged_points(run_id),
            )
        if entry.stage == "film":
            self._pictures(run_id, entry, "pictures")
        data = {path: md5 for path, md5 in entry.deps.items() if Path(path).name in DATA}
        if data and not (found and found[0].inputs and found[0].inputs.dataset_inputs):
            self.runs.log_inputs(run_id, data)
        if known is None or found[0].info.status != "FINISHED":
            self.runs.end(run_id, "FINISHED")

    def on_disk(self, path: str) -> Path | None:
        """Return the path of an artifact, if what is there is what dvc.lock names; else leave a note."""
        file = self.root / path
        if file.exists() and artifact_hash(file) == self.known.hashes[path]:
            return file
        note = f"{path} is {'not the one of dvc.lock' if file.exists() else 'not on disk'}: left out (`dvc checkout` brings it)"
        if note not in self.notes:
            self.notes.append(note)
        return None

    def _rebuild(self, entry: Entry, parent: str | None) -> str:
        from worldmodels.tracking.runs import stage_name

        tags = {"wm.kind": "stage", "wm.stage": entry.stage, "wm.key": entry.key, "wm.artifact": entry.artifact}
        lineage = {f"dvc.{path}": md5 for path, md5 in entry.deps.items()}
        self.runs_added += 1
        return self.runs.create(stage_name(entry.stage, entry.key), tags | lineage | {"wm.rebuilt": "true"} | self.git, parent)

    def _parent(self, key: str, fingerprint: str | None) -> str:
        """Return the iteration's run: the one of this world model, else the live one, else a new one."""
        for run in self._parents:
            if fingerprint is not None and run.data.tags.get("wm.fingerprint") == fingerprint:
                return run.info.run_id
        return self.runs.open_parent(key, current=fingerprint is None)

    def _settle(self, key: str, parent: str, fingerprint: str, world_model: Sequence[Entry], own: Sequence[Entry]) -> None:
        """Complete an iteration's run; leave no other run of it that is empty or open."""
        others = {run.info.run_id: run for run in self._parents if run.data.tags.get("wm.key") == key}
        known = others.pop(parent, None)
        tags = {} if known is None else known.data.tags
        agents = self.known.agents(key)
        evaluated = [entry for entry in (self.known.get("evaluate", agent) for agent in agents) if entry is not None]
        at_work = any(self._children.get(run.info.run_id) == parent and self.runs.is_alive(run) for run in self._stages)
        done = bool(agents) and len(evaluated) == len(agents) and not at_work
        folder = WorldModelFiles(key).folder.as_posix()
        lineage = {f"wm.{name}": self.known.hashes[f"{folder}/{file}"] for name, file in LINEAGE.items()}
        state = {"wm.fingerprint": fingerprint, "wm.current": "true", "wm.open": str(not done).lower(), **lineage}
        if tags.get("wm.fingerprint") != fingerprint:
            self.parents_added += 1
            state |= {} if "git.commit" in tags else self.git
        self.runs.tag(parent, {name: value for name, value in state.items() if tags.get(name) != value})
        params = {name: value for entry in world_model for name, value in entry.params.items()}
        self.runs.log_params(parent, {k: v for k, v in params.items() if known is None or k not in known.data.params})
        if done and (known is None or known.info.status != "FINISHED"):
            self.runs.end(parent, "FINISHED")
        elif not done and known is not None and known.info.status == "FINISHED":
            self.runs.client.update_run(parent, status="SCHEDULED")
        self._headline(parent, tags, evaluated)
        self._config(parent, tags, own)
        for entry in own:
            if entry.stage == "film":
                self._pictures(parent, entry, f"pictures/{entry.key}", tags)
        for other, run in others.items():
            told = run.data.tags
            if other not in self._children.values() and "wm.fingerprint" not in told:
                self.runs.client.delete_run(other)  # a run again of what was there already: its stages' runs have moved
            elif told.get("wm.current") == "true":
                self.runs.tag(other, {"wm.current": "false", "wm.open": "false"})

    def _headline(self, parent: str, tags: Mapping[str, str], evaluated: Sequence[Entry]) -> None:
        """Show of an iteration the scores of its last agent that is no part of a study."""
        last = next((entry for entry in reversed(evaluated) if self.known.about(entry).get("study") == NO_STUDY), None)
        if last is None or tags.get("wm.scores") == last.artifact:
            return
        scores = self.on_disk(last.primary)
        if scores is not None:
            self.runs.log_metrics(parent, points(scores))
            self.runs.tag(parent, {"wm.scores": last.artifact, "wm.agent": last.key})

    def _config(self, parent: str, tags: Mapping[str, str], own: Sequence[Entry]) -> None:
        """Log the settings of an iteration, with all defaults."""
        from worldmodels.tracking.resolved import resolved_config

        text = resolved_config({name: value for entry in own for name, value in entry.sections.items()})
        digest = hashlib.sha256(text.encode()).hexdigest()
        there = {file.path for file in self.runs.client.list_artifacts(parent)}
        if tags.get("wm.config") != digest or "config.yaml" not in there:
            self.runs.client.log_text(parent, text, "config.yaml")
            self.runs.tag(parent, {"wm.config": digest})

    def _pictures(self, run_id: str, entry: Entry, place: str, tags: Mapping[str, str] | None = None) -> None:
        """Log the film of an agent, unless the run holds it. ``tags``: of a run whose film may change."""
        folder, name = self.on_disk(entry.primary), f"wm.film.{entry.key}"
        if folder is None:
            return
        same = tags is None or tags.get(name) == entry.artifact
        if same and self.runs.holds(run_id, folder, place):
            return
        self.runs.log_pictures(run_id, folder, place)
        if tags is not None:
            self.runs.tag(run_id, {name: entry.artifact})


def _metrics_file(entry: Entry) -> str | None:
    """Return the path of the output that holds a stage's metrics: a curve or a calibration, else a summary."""
    if not STAGES[entry.stage]:
        return None
    if entry.stage == "initialise":
        return entry.primary
    return next((path for suffix in (".csv", ".json") for path in entry.outs if path.endswith(suffix)), None)


def _is_of(run: "Run", entry: Entry) -> bool:
    tags = run.data.tags
    return (tags.get("wm.stage"), tags.get("wm.key"), tags.get("wm.artifact")) == (entry.stage, entry.key, entry.artifact)


def _fingerprint(entries: Sequence[Entry]) -> str:
    text = "\n".join(sorted(f"{entry.stage} {entry.key} {entry.artifact}" for entry in entries))
    return hashlib.sha256(text.encode()).hexdigest()
