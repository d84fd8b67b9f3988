"""A stage as a live MLflow run. It observes: nothing that a stage writes depends on it, and no failure of it stops a stage."""

import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from worldmodels.errors import WorldModelsError
from worldmodels.params import PARAMS_FILE, load_yaml
from worldmodels.storage.layout import STAGES
from worldmodels.tracking.lineage import artifact_hash, git_tags
from worldmodels.tracking.points import metrics_of, points, step_of
from worldmodels.tracking.progress import Bar
from worldmodels.tracking.store import connect, lock, project_root, reason_of

T = TypeVar("T")
FLUSH_SECONDS, KILLED_FLUSH_SECONDS = 60.0, 5.0
"""How long a stage waits at its end, at most, for what is on its way."""
MACHINE_SECONDS = 10
"""Time between two looks at CPU, memory, disk, network and GPU."""
BATCH_SECONDS = 1.0
"""How long metrics are gathered before they are sent together."""


class StageRun:
    """What a stage says while it runs. All of it returns at once; a thread sends it."""

    def __init__(self) -> None:
        self._outbox: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
        self._bar: Bar | None = None

    def observe(self, row: Mapping[str, Any]) -> None:
        """Log a row of a curve as it is made: its first value is the step, its second names a split or a phase."""
        values = metrics_of(row)
        self._outbox.put(("metrics", (values, step_of(row), int(time.time() * 1000))))
        if self._bar is not None and values:
            self._bar.note(_headline(values))

    def progress(self, steps: Iterable[T], label: str, unit: str = "step", total: int | None = None) -> Iterable[T]:
        """Show a loop's rate and time left on stderr."""
        self._bar = Bar(steps, label, unit, total)
        return self._bar

    def done(self, primary: Path, metrics: Path | None = None) -> None:
        """Say that the stage's outputs are written.

        Args:
            primary: the output that stands for the stage.
            metrics: the output that holds its metrics, if they were not observed row by row.
        """
        self._outbox.put(("done", (Path(primary).resolve(), metrics and Path(metrics).resolve())))


@contextmanager
def stage_run(
    stage: str, key: str, params: Mapping[str, Any], *, world_model: str = "", computation: str = ""
) -> Iterator[StageRun]:
    """Track a stage while the block runs; ``WM_TRACKING=off`` shows progress only.

    Args:
        stage: its name.
        key: of the world model or the agent.
        params: flattened, by the names of params.yaml.
        world_model: key of the world model that an agent is based on.
        computation: names what the stage computes. A run of the same that did not finish is continued.
    """
    run = StageRun()
    off = os.environ.get("WM_TRACKING", "").lower() in ("off", "0", "false")
    told = (run._outbox, stage, key, params, world_model, computation)
    sender = None if off else threading.Thread(target=_send, args=told, daemon=True)
    if sender is not None:
        sender.start()
    bare = _is_main() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    previous = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143)) if bare else None
    status = "FAILED"
    try:
        yield run
        status = "FINISHED"
    except (KeyboardInterrupt, SystemExit):
        status = "KILLED"
        raise
    finally:
        run._outbox.put(("end", status))
        if sender is not None:
            sender.join(FLUSH_SECONDS if status == "FINISHED" else KILLED_FLUSH_SECONDS)
            if sender.is_alive():
                print("warning: MLflow is too slow to wait for. `wm track sync` delivers this run later.", file=sys.stderr)
        if previous is not None:
            signal.signal(signal.SIGTERM, previous)


def _send(
    outbox: "queue.SimpleQueue[tuple[str, Any]]",
    stage: str,
    key: str,
    params: Mapping[str, Any],
    world_model: str,
    computation: str,
) -> None:
    """Send what a stage says until it ends; runs in a thread of its own."""
    try:
        root = project_root()
        connected = connect(root)
        if connected is None:
            return
        # Here: importing mlflow takes seconds, and this is a thread.
        from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

        from worldmodels.tracking.runs import RunStore

        runs = RunStore(*connected)
        with lock(root):  # else two stages that begin at once would make two parents
            run_id = runs.begin_live(
                stage,
                key,
                params,
                git_tags(root) | _experiment_tag(),
                world_model=_iteration(root, stage, key, world_model),
                computation=computation,
            )
        logged = runs.logged_points(run_id)  # a killed stage goes on from a little before where it was
        machine = SystemMetricsMonitor(run_id, sampling_interval=MACHINE_SECONDS, resume_logging=bool(logged))
        machine.start()
        ended = False
        while not ended:
            metrics: list[tuple[dict[str, float], int, int]] = []
            for kind, content in _drain(outbox):
                if kind == "metrics":
                    metrics.append(content)
                elif kind == "done":
                    primary, figures = content
                    runs.tag(run_id, {"wm.artifact": artifact_hash(primary)})
                    if figures is not None:
                        metrics += points(figures)
                    if stage == "film":
                        runs.log_pictures(run_id, primary)
                else:
                    ended, status = True, content
            if metrics:
                runs.log_metrics(run_id, metrics, logged=logged)
        machine.finish()
        runs.end(run_id, status)
    except Exception as error:  # tracking observes: it says what went wrong and lets the stage go on
        reason = reason_of(error)
        print(f"warning: this run is not tracked further ({reason}). `wm track sync` delivers it later.", file=sys.stderr)


def _drain(outbox: "queue.SimpleQueue[tuple[str, Any]]") -> list[tuple[str, Any]]:
    """Wait for something to send, then gather for a moment, and return all of it."""
    items = [outbox.get()]
    until = time.monotonic() + BATCH_SECONDS
    while items[-1][0] == "metrics":
        try:
            items.append(outbox.get(timeout=max(0.0, until - time.monotonic())))
        except queue.Empty:
            break
    return items


def _headline(values: Mapping[str, float]) -> str:
    name = next((name for name in values if name.endswith(("/loss", "/mean"))), next(iter(values)))
    return f"{name} {values[name]:.4g}"


def _iteration(root: Path, stage: str, key: str, world_model: str) -> str | None:
    """Return the key of the iteration that a stage belongs to: `<environment>-0` is the beginning of the first one."""
    section = STAGES[stage]
    if section != "environments":
        return key if section == "world_models" else world_model or None
    try:
        entries = load_yaml(root / PARAMS_FILE).get("world_models")
    except WorldModelsError:
        entries = None
    known = entries.items() if isinstance(entries, dict) else ()
    firsts = (str(name) for name, entry in known if isinstance(entry, dict) and entry.get("after") == key)
    return next(firsts, f"{key.removesuffix('-0')}-1")


def _experiment_tag() -> dict[str, str]:
    name = os.environ.get("DVC_EXP_NAME")
    return {"dvc.experiment": name} if name else {}


def _is_main() -> bool:
    return threading.current_thread() is threading.main_thread()
