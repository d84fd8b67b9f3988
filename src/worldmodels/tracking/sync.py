"""MLflow as a mirror of dvc.lock: one run for every artifact, however it came to be here."""

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from mlflow.entities import Run
from pydantic import TypeAdapter, ValidationError

from worldmodels.report.table import paper, read_scores, score_text
from worldmodels.storage.layout import NO_STUDY, STAGES, WorldModelFiles
from worldmodels.tracking.dvclock import DvcLock, Entry, artifact_hash, read_lock
from worldmodels.tracking.git import lock_tags
from worldmodels.tracking.points import points
from worldmodels.tracking.registry import register_agents
from worldmodels.tracking.release import describe
from worldmodels.tracking.runs import EVALUATION, TRAINING, RunStore
from worldmodels.tracking.store import PREFIX, game_experiment, lock, opened

DATA = ("data.json", "latents.safetensors")
"""What a stage reads as data: MLflow shows it as the run's data set."""


@dataclass
class SyncReport:
    """What a sync did."""

    entries: int = 0  # stages in dvc.lock that belong to a game
    runs_added: int = 0  # of stages
    parents_added: int = 0  # runs of iterations, made or adopted from live ones
    versions_added: int = 0  # of registered models
    notes: list[str] = field(default_factory=list)  # what was left out, and why

    def __str__(self) -> str:
        added = f"{self.runs_added} stage runs, {self.parents_added} iterations, {self.versions_added} model versions"
        return "\n".join([f"{self.entries} stages; added: {added}.", *(f"note: {note}" for note in self.notes)])


def sync(root: Path, *, registry: bool = True) -> SyncReport:
    """Make sure that MLflow has a run for every stage of dvc.lock, a parent for every world model, a version for every agent.

    A game has an experiment of its own; the report, which belongs to none, has no run. Idempotent. What is missing is rebuilt
    from the artifacts; artifacts that are not on disk, or are not as dvc.lock says, are left out with a note, and come with the
    next sync after ``dvc checkout``.

    Raises:
        ArtifactError: there is no dvc.lock, or it is damaged.
        StoreError: MLflow cannot be used.
    """
    entries, report = read_lock(root / "dvc.lock"), SyncReport()
    with opened(root) as client, lock(root):
        for game in dict.fromkeys(entry.env for entry in entries if entry.env):
            known = DvcLock([entry for entry in entries if entry.env == game])
            mirror = Mirror(RunStore(client, game_experiment(client, root, game)), root, known, report)
            for entry in known.entries:
                if known.parent(entry) is None:
                    mirror.stage(entry, None)
            for key in known.world_models():
                mirror.iteration(key)
            mirror.runs.end_killed()
            mirror.runs.rest()
            if registry:
                register_agents(mirror)
                describe(client, PREFIX + game)
    return report


class Mirror:
    """Writes the runs of a game.

    Attributes:
        report: what was done so far.
        parents: world model -> id of its iteration's run.
        tests: agent -> id of the run in which it was evaluated.
    """

    def __init__(self, runs: RunStore, root: Path, known: DvcLock, report: SyncReport) -> None:
        self.runs, self.root, self.known, self.report = runs, root, known, report
        report.entries += len(known.entries)
        self.git = lock_tags(root)
        self.parents: dict[str, str] = {}
        self.tests: dict[str, str] = {}
        self._stages = runs.find(kind="stage")
        self._parents = runs.find(kind="iteration")
        self._children = {run.info.run_id: run.data.tags.get("mlflow.parentRunId") for run in self._stages}

    def iteration(self, key: str) -> None:
        """Mirror an iteration: its parent run and the runs of its stages, also the stages of agents."""
        own = [entry for entry in self.known.entries if self.known.parent(entry) == key]
        made = [self.known.get(stage, key) for stage, section in STAGES.items() if section == "world_models"]
        whole = [entry for entry in made if entry is not None]
        seed = next((str(entry.sections["seed"]) for entry in whole if "seed" in entry.sections), "")
        state = {"wm.key": key, "wm.seed": seed, **self.known.lineage(key)} if len(whole) == len(made) else {}
        # The run of this world model, else the live one, else a new one.
        same = [run.info.run_id for run in self._parents if state and state.items() <= run.data.tags.items()]
        parent = self.parents[key] = same[0] if same else self.runs.open_parent(key, seed, current=not state)
        for entry in own:
            self.stage(entry, parent)
        if state:
            self._settle(key, parent, state, whole, own)

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
            moves = self.known.get(entry.stage, entry.key) is not None  # what is to be run again stays where it was
            if known.tags.get("mlflow.parentRunId") != parent and parent is not None and moves:
                self.runs.tag(run_id, {"mlflow.parentRunId": parent})
                self._children[run_id] = parent
        else:
            tags = {"wm.artifact": entry.artifact, "wm.rebuilt": "true", **self.git}
            tags |= {f"dvc.{path}": md5 for path, md5 in entry.deps.items()}
            run_id, known = self.runs.create_stage(entry.stage, entry.key, tags, parent), None
            self._children[run_id] = parent
            self.report.runs_added += 1
        if entry.stage == "evaluate":
            self.tests[entry.key] = run_id
        self.runs.log_params(run_id, entry.params, known.params if known else ())
        figures = _metrics_file(entry)
        on_disk = None if figures is None else self.on_disk(figures)
        if on_disk is not None:
            # What was on its way when a stage was killed is lost to MLflow, but not to the curve on disk.
            if known is not None and "wm.continued" in known.tags:
                self.runs.log_metrics(run_id, points(on_disk), logged=self.runs.logged_points(run_id))
            else:
                self.runs.log_metrics(run_id, points(on_disk), without=known.metrics if known else ())
        if entry.stage == "film":
            self._pictures(run_id, entry, "pictures", {f"wm.film.{entry.key}": entry.artifact})
        data = {path: md5 for path, md5 in entry.deps.items() if Path(path).name in DATA}
        if data and not (found and found[0].inputs and found[0].inputs.dataset_inputs):
            self.runs.log_inputs(run_id, data, EVALUATION if entry.stage == "calibrate" else TRAINING)
        if known is None or found[0].info.status != "FINISHED":
            self.runs.client.set_terminated(run_id, "FINISHED")

    def on_disk(self, path: str) -> Path | None:
        """Return the path of an artifact, if what is there is what dvc.lock names; else leave a note."""
        file = self.root / path
        if file.exists() and artifact_hash(file) == self.known.hashes[path]:
            return file
        note = f"{path} is {'not the one of dvc.lock' if file.exists() else 'not on disk'}: left out (`dvc checkout` brings it)"
        if note not in self.report.notes:
            self.report.notes.append(note)
        return None

    def _settle(self, key: str, parent: str, state: dict[str, str], world_model: Sequence[Entry], own: Sequence[Entry]) -> None:
        """Complete an iteration's run; leave no other run of it that is empty or open."""
        named = [run for run in self._parents if run.data.tags.get("wm.key") == key]
        others = {run.info.run_id: run for run in named if run.data.tags.get("wm.seed", state["wm.seed"]) == state["wm.seed"]}
        known = others.pop(parent, None)
        tags = {} if known is None else known.data.tags
        agents = self.known.agents(key)
        evaluated = [entry for entry in (self.known.get("evaluate", agent) for agent in agents) if entry is not None]
        at_work = any(self._children.get(run.info.run_id) == parent and self.runs.is_alive(run) for run in self._stages)
        done = bool(agents) and len(evaluated) == len(agents) and not at_work
        if not state.items() <= tags.items():
            self.report.parents_added += 1
            state |= {} if "git.commit" in tags else self.git
        state |= {"wm.current": "true", "wm.open": str(not done).lower()}
        self.runs.tag(parent, {name: value for name, value in state.items() if tags.get(name) != value})
        params = {name: value for entry in world_model for name, value in entry.params.items()}
        self.runs.log_params(parent, params, known.data.params if known else ())
        if not (known and known.inputs and known.inputs.dataset_inputs):
            data = WorldModelFiles(key).data.as_posix()
            self.runs.log_inputs(parent, {data: self.known.hashes[data]})
        if done and (known is None or known.info.status != "FINISHED"):
            self.runs.client.set_terminated(parent, "FINISHED")
        elif not done and known is not None and known.info.status == "FINISHED":
            self.runs.client.update_run(parent, status="SCHEDULED")
        self._headline(parent, tags, evaluated)
        self._config(parent, tags, own)
        for entry in own:
            if entry.stage == "film":
                self._pictures(parent, entry, f"pictures/{entry.key}", tags)
        for other, run in others.items():
            told = run.data.tags
            if other not in self._children.values() and "wm.current" not in told:
                self.runs.client.delete_run(other)  # a run again of what was there already: its stages' runs have moved
            elif told.get("wm.current") == "true":
                self.runs.tag(other, {"wm.current": "false", "wm.open": "false"})

    def _headline(self, parent: str, tags: Mapping[str, str], evaluated: Sequence[Entry]) -> None:
        """Show of an iteration the scores of its last agent that is no part of a study, and beside what they stand."""
        last = next((entry for entry in reversed(evaluated) if entry.about.get("study") == NO_STUDY), None)
        scores = None if last is None or tags.get("wm.scores") == last.artifact else self.on_disk(last.primary)
        if last is not None and scores is not None:
            found = read_scores(scores)
            beside = {"agent": last.key, "episodes": f"{found['real']['n']} ({found['block']})"}
            beside |= {
                "blind": score_text(found["blind"]),
                "random": score_text(found["random"]),
                "paper": score_text(paper(found)),
            }
            self.runs.log_metrics(parent, points(scores))
            self.runs.tag(parent, {"wm.scores": last.artifact, **beside})

    def _config(self, parent: str, tags: Mapping[str, str], own: Sequence[Entry]) -> None:
        """Log the settings of an iteration, with all defaults."""
        text = resolved_config({name: value for entry in own for name, value in entry.sections.items()})
        digest = hashlib.sha256(text.encode()).hexdigest()
        there = {file.path for file in self.runs.client.list_artifacts(parent)}
        if tags.get("wm.config") != digest or "config.yaml" not in there:
            self.runs.client.log_text(parent, text, "config.yaml")
            self.runs.tag(parent, {"wm.config": digest})

    def _pictures(self, run_id: str, entry: Entry, place: str, tags: Mapping[str, str]) -> None:
        """Log the film of an agent, unless the run with these tags holds it."""
        folder, name = self.on_disk(entry.primary), f"wm.film.{entry.key}"
        if folder is None:
            return
        there = {Path(file.path).name for file in self.runs.client.list_artifacts(run_id, place)}
        if tags.get(name) != entry.artifact or not {file.name for file in folder.iterdir()} <= there:
            self.runs.log_pictures(run_id, folder, place)
            self.runs.tag(run_id, {name: entry.artifact})


def resolved_config(sections: Mapping[str, Any]) -> str:
    """Return params as YAML, with all defaults. A section of another version of the code stays as it was written.

    Args:
        sections: dotted key of params.yaml -> what stood there, as dvc.lock has it.
    """
    # Here: it brings torch along, which a command that changes nothing does not wait for.
    from worldmodels.project import EnvironmentSection, Project

    fields = EnvironmentSection.model_fields | {"compute": Project.model_fields["compute"]}
    whole: dict[str, Any] = {}
    for key, section in sections.items():
        *path, last = key.split(".")
        node = whole
        for part in path:
            node = node.setdefault(part, {})
        alone = path[1:] == ["controllers"]  # one section of several
        name, written = ("controllers", {last: section}) if alone else (last, section)
        if name in fields:
            kind = TypeAdapter(fields[name].annotation)  # type: ignore[arg-type]
            with suppress(ValidationError):
                written = kind.dump_python(kind.validate_python(written), mode="json")
        node |= written if alone else {last: written}
    return yaml.safe_dump(whole, sort_keys=True, allow_unicode=True)


def _metrics_file(entry: Entry) -> str | None:
    """Return the path of the output that holds a stage's metrics: a curve or a calibration, else a summary."""
    if not STAGES[entry.stage]:
        return None
    if entry.stage == "initialise":
        return entry.primary
    return next((path for suffix in (".csv", ".json") for path in entry.outs if path.endswith(suffix)), None)


def _is_of(run: Run, entry: Entry) -> bool:
    tags = run.data.tags
    return (tags.get("wm.stage"), tags.get("wm.key"), tags.get("wm.artifact")) == (entry.stage, entry.key, entry.artifact)
