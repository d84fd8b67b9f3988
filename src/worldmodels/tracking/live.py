"""A stage as a live MLflow run. It observes: nothing that a stage writes depends on it, and no failure of it stops a stage."""

import os
import queue
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

from worldmodels.storage.layout import state_of
from worldmodels.tracking.course import Course
from worldmodels.tracking.dvclock import artifact_hash
from worldmodels.tracking.git import git_tags
from worldmodels.tracking.points import Point, point_of, points
from worldmodels.tracking.store import game_experiment, is_off, lock, open_store, reason_of

T = TypeVar("T")
FLUSH_SECONDS, KILLED_FLUSH_SECONDS = 60.0, 5.0
"""How long a stage waits at its end, at most, for what is on its way."""
SHORT_SECONDS = 5.0
"""A stage that is done sooner is not tracked live: MLflow takes longer to load than it took. `wm track sync` delivers it."""
MACHINE_SECONDS = 10
"""Time between two looks at CPU, memory, disk, network and GPU."""
BATCH_SECONDS = 1.0
"""How long metrics are gathered before they are sent together."""
QUIET_SECONDS = 10.0
"""Time between two lines of progress if stderr is not a terminal."""


class StageRun:
    """What a stage says while it runs. All of it returns at once; a thread sends it."""

    def __init__(self, stage: str) -> None:
        self.stage = stage
        self.outbox: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
        self._bar: tqdm[Any] | None = None

    def observe(self, row: Mapping[str, Any]) -> None:
        """Log a row of a curve as it is made: its first value is the step, its second names a split or a phase."""
        values, *_ = point = point_of(self.stage, row, int(time.time() * 1000))
        self.outbox.put(("metrics", point))
        if self._bar is not None and values:
            name = next((name for name in values if name.endswith(("loss", "return"))), next(iter(values)))
            self._bar.set_postfix_str(f"{name} {values[name]:.4g}", refresh=False)

    def progress(self, steps: Iterable[T], label: str, unit: str = "step", total: int | None = None) -> Iterable[T]:
        """Show a loop's rate and time left on stderr: a bar on a terminal, a line now and then elsewhere."""
        self._bar = tqdm(steps, label, total, unit=f" {unit}", miniters=1, **_shown())
        return self._bar

    def play(self, label: str, episodes: int, limit: int) -> "Play":
        """Show how far the play of so many episodes is, each of at most ``limit`` steps, in the same way."""
        play = Play(label, episodes, limit)
        self._bar = play.bar
        return play

    def beat(self, over: threading.Event) -> None:
        """Show the present bar again, with the time that has passed, as long as nothing moves it; until ``over``."""
        before = None
        while not over.wait(QUIET_SECONDS):
            bar = self._bar
            if bar is not None and not bar.disable and (id(bar), bar.n) == before:
                bar.refresh()
            before = bar and (id(bar), bar.n)

    def done(self, primary: Path, metrics: Path | None = None) -> None:
        """Say that the stage's outputs are written.

        Args:
            primary: the output that stands for the stage.
            metrics: the output that holds its metrics, if they were not observed row by row.
        """
        self.outbox.put(("done", (Path(primary).resolve(), metrics and Path(metrics).resolve())))


class Play:
    """A bar of steps, told of play as it goes on. Episodes that end together say nothing for long, and then all at once."""

    def __init__(self, label: str, episodes: int, limit: int) -> None:
        self._episodes, self._limit, self._ended = episodes, limit, 0
        self.bar = tqdm(desc=label, total=episodes * limit, unit=" step", unit_scale=True, miniters=1, **_shown())

    def __call__(self, steps: int, ended: int) -> None:
        """Take that so many more steps were played, and so many more episodes ended."""
        self._ended += ended
        played = int(self.bar.n) + steps
        # How long the others will last is best judged by all steps over all ends: the life of those that go on counts too.
        life = min(self._limit, played / self._ended) if self._ended else self._limit
        over = self._ended >= self._episodes
        self.bar.total = played if over else max(played + 1, round(self._episodes * life))
        self.bar.set_postfix_str(f"{self._ended}/{self._episodes} episodes", refresh=False)
        self.bar.update(steps)
        if over:
            self.bar.close()


def _shown() -> dict[str, Any]:
    """Return how tqdm shows a bar: on a terminal in its place, elsewhere as a line now and then."""
    if sys.stderr.isatty():
        return {"file": sys.stderr, "mininterval": 0.2, "dynamic_ncols": True}
    return {"file": _Lines(), "mininterval": QUIET_SECONDS, "ncols": 100}


class _Lines:
    """A stream for tqdm that ends lines instead of returning to their start."""

    def write(self, text: str) -> None:
        text = text.replace("\r", "").strip()
        if text:
            sys.stderr.write(text + "\n")

    def flush(self) -> None:
        sys.stderr.flush()


@contextmanager
def stage_run(
    stage: str, key: str, env: str, params: Mapping[str, Any], *, seed: int = 0, world_model: str = "", computation: str = ""
) -> Iterator[StageRun]:
    """Track a stage while the block runs, if it takes more than ``SHORT_SECONDS``.

    ``WM_TRACKING=on`` tracks it from its first second. ``WM_TRACKING=off`` shows progress only, and so does a stage of no game.

    Args:
        stage: its name.
        key: of the world model or the agent.
        env: its game.
        params: of the game, flattened, by the names of params.yaml; those of the stage itself are logged.
        seed: of the chain.
        world_model: key of the world model that an agent is based on.
        computation: names what the stage computes. A run of the same that did not finish is continued.
    """
    run = StageRun(stage)
    course = Course(Path(), state_of(stage, key))
    if course.text:
        print(f"{stage} {key}: {course.text}", file=sys.stderr)
    at_once = os.environ.get("WM_TRACKING", "").lower() == "on"
    over, told = threading.Event(), (run.outbox, stage, key, env, params, seed, world_model, computation)

    def send() -> None:
        if at_once or not over.wait(SHORT_SECONDS):  # at once: also a stage that ends before this thread runs
            _send(*told)

    threading.Thread(target=run.beat, args=(over,), daemon=True).start()
    sender = None if is_off() or not env else threading.Thread(target=send, daemon=True)
    if sender is not None:
        sender.start()
    status = "FAILED"
    try:
        yield run
        status = "FINISHED"
        course.end()
    except (KeyboardInterrupt, SystemExit):
        status = "KILLED"
        raise
    finally:
        run.outbox.put(("end", status))
        over.set()
        if sender is not None:
            sender.join(FLUSH_SECONDS if status == "FINISHED" else KILLED_FLUSH_SECONDS)
            if sender.is_alive():
                print("warning: MLflow is too slow to wait for. `wm track sync` delivers this run later.", file=sys.stderr)


def _send(
    outbox: "queue.SimpleQueue[tuple[str, Any]]",
    stage: str,
    key: str,
    env: str,
    params: Mapping[str, Any],
    seed: int,
    *told: str,
) -> None:
    """Send what a stage says until it ends; runs in a thread of its own."""
    try:
        root = Path(os.environ.get("DVC_ROOT") or Path.cwd())  # DVC names the project also to an experiment's own folder
        client = open_store(root)
        # Here: importing mlflow takes seconds, and this is a thread.
        from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

        from worldmodels.tracking.runs import RunStore

        experiment = os.environ.get("DVC_EXP_NAME")
        tags = git_tags(root) | {"wm.seed": str(seed)} | ({"dvc.experiment": experiment} if experiment else {})
        with lock(root):  # else two stages that begin at once would make two parents
            runs = RunStore(client, game_experiment(client, root, env))
            run_id = runs.begin_live(stage, key, params, tags, *told)
        logged = runs.logged_points(run_id)  # a killed stage goes on from a little before where it was
        machine = SystemMetricsMonitor(run_id, sampling_interval=MACHINE_SECONDS, resume_logging=bool(logged))
        machine.start()
        status = ""
        try:
            while not status:
                metrics: list[Point] = []
                for kind, content in _drain(outbox):
                    if kind == "metrics":
                        metrics.append(content)
                    elif kind == "done":
                        primary, figures = content
                        runs.tag(run_id, {"wm.artifact": artifact_hash(primary)})
                        metrics += points(figures) if figures is not None else []
                        if stage == "film":
                            runs.log_pictures(run_id, primary)
                    else:
                        status = content
                runs.log_metrics(run_id, metrics, logged=logged)
        finally:
            machine.finish()
        client.set_terminated(run_id, status)
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
