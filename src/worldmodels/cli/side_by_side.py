"""``wm repro``: ``dvc repro`` with the games side by side, so that no core waits.

Stages of one game follow from each other; two games share nothing but the report. A stage that computes on one core and
another beside it are done sooner than one after the other on two: small models gain little from a second core.
"""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from worldmodels.compute.cores import cores
from worldmodels.params import PARAMS_FILE
from worldmodels.project import Project, load_project
from worldmodels.storage.layout import STAGES


class Command(NamedTuple):
    """A program to run."""

    arguments: Sequence[str]
    folder: Path
    environment: Mapping[str, str] | None = None  # none: as here


def repro(root: Path, targets: Sequence[str]) -> int:
    """Bring the project up to date, or what its targets need; return DVC's exit code.

    The results are the same as by ``dvc repro``. The games are side by side if there are several, no targets are named, and
    the cores suffice for two stages at a time (``compute.threads``).
    """
    project = load_project(root / PARAMS_FILE)
    places = games_at_a_time(project)
    if targets or places < 2:
        return subprocess.run(_dvc(*targets), cwd=root, check=False).returncode
    print(f"{' and '.join(project.environments)} are computed side by side, {places} at a time.", flush=True)
    codes = run_together([Command(_dvc(*stages_of(project, name)), root) for name in project.environments], places)
    failed = [name for name, code in zip(project.environments, codes, strict=True) if code]
    if failed:
        print(f"{' and '.join(failed)}: not done, see above. The same command goes on there.", file=sys.stderr)
        return 1
    code = subprocess.run(_dvc(), cwd=root, check=False).returncode
    _order(root / "dvc.lock", [stage for name in project.environments for stage in stages_of(project, name)])
    return code


def run_together(
    commands: Sequence[Command], places: int, ended: Callable[[int, int], object] = lambda number, code: None
) -> list[int]:
    """Run programs, so many at a time; return their exit codes. What stops us stops them.

    ``ended``: is called with the number of a program and its exit code as soon as it has ended.
    """
    with ThreadPoolExecutor(places) as pool, _stopped_together() as started:

        def run(number: int) -> int:
            command = commands[number]
            # What runs beside another cannot move a bar on the terminal: it says a line now and then. In a session of its
            # own, it is stopped by us alone, and not by the terminal as well.
            how: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "start_new_session": True}
            how |= {"cwd": command.folder, "env": command.environment, "text": True, "errors": "replace"}
            with subprocess.Popen(command.arguments, **how) as process:
                started(process)
                for line in process.stdout or ():
                    print(line, end="", flush=True)
            ended(number, process.returncode)
            return process.returncode

        return list(pool.map(run, range(len(commands))))


def own_code() -> dict[str, str]:
    """Return the variables with which commands in another project's folder run the code there, by this Python."""
    path = os.pathsep.join(filter(None, ("src", os.environ.get("PYTHONPATH"))))
    tools = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)))
    return os.environ | {"PYTHONPATH": path, "PATH": tools}


def games_at_a_time(project: Project) -> int:
    """Return how many games this machine's cores suffice for; 0 if not even for one."""
    return min(cores() // project.compute.threads, len(project.environments))


def stages_of(project: Project, environment: str) -> list[str]:
    """Return all stages of a game, as DVC calls them, in the order in which stages run."""
    found = []
    for stage, section in STAGES.items():
        entries: list[str] | dict[str, Any] = getattr(project, section) if section else []
        keys = (
            [key for key, entry in entries.items() if entry.env == environment] if isinstance(entries, dict) else [environment]
        )
        found += [f"{stage}@{key}" for key in keys if section]
    return found


def _order(lock: Path, stages: Sequence[str]) -> None:
    """Put the stages in dvc.lock into this order, and others behind them: DVC has them as they ended, which is luck here."""
    from dvc.utils.serialize import modify_yaml

    place = {stage: number for number, stage in enumerate(stages)}
    with modify_yaml(str(lock)) as data:
        known = data["stages"]
        for stage in sorted(known, key=lambda stage: place.get(stage, len(place))):
            known[stage] = known.pop(stage)


def _dvc(*targets: str) -> list[str]:
    return [sys.executable, "-m", "dvc", "--wait-for-lock", "repro", *targets]


@contextmanager
def _stopped_together() -> Iterator[Callable[["subprocess.Popen[str]"], None]]:
    """Yield what takes processes, sessions of their own. What stops us, such as Ctrl-C, is passed on to their stages.

    A stage keeps its checkpoint then, and DVC ends with it.
    """
    processes: list[subprocess.Popen[str]] = []
    stopped = threading.Event()

    def stop(process: "subprocess.Popen[str]") -> None:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGINT)

    def started(process: "subprocess.Popen[str]") -> None:
        processes.append(process)
        if stopped.is_set():  # it was about to start when we were stopped
            stop(process)

    before = {number: signal.signal(number, _interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield started
    except BaseException:
        stopped.set()
        for process in processes:
            stop(process)
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupt(number: int, _: object) -> None:
    raise KeyboardInterrupt(signal.Signals(number).name)
