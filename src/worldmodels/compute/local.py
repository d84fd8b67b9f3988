"""Work spread over the processes of this machine, each of them watched: one that dies or hangs is replaced."""

import faulthandler
import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from multiprocessing import connection
from typing import Any, NamedTuple, TypeVar

import psutil

from worldmodels.compute.lifeline import when_gone
from worldmodels.errors import WorldModelsError
from worldmodels.shapes import TaskTold

Result = TypeVar("Result")
TRIES = 3
"""Workers that one task may lose before it is given up."""
STALL_SECONDS = 300.0
"""Time without work in a worker and its children after which the worker hangs; ``WM_STALL_SECONDS`` overrides it."""
LOOK_SECONDS = 1.0
"""Time between two looks at the workers."""
TELL_SECONDS = 0.5
"""Time between two words of a worker on how far its task is."""


def run_tasks(
    task: Callable[..., Result], arguments: Sequence[tuple], workers: int, told: TaskTold | None = None
) -> Iterator[tuple[int, Result]]:
    """Run ``task(*arguments[i])`` for every i; yield (i, result) as each is done.

    A worker that dies or hangs is named on stderr, with its traceback if it hangs; another one does its task again.

    Args:
        task: a function of a module, so that a worker can import it.
        arguments: one tuple a task; what a task gives may depend on nothing else.
        workers: processes; 1 runs in this process.
        told: hears how far each task is. A task is called with ``told=`` then, a ``Told``. What was heard of a worker that is
            lost is taken back.

    Raises:
        WorldModelsError: a task lost ``TRIES`` workers. An exception of a task is raised as it is, that of a library as a
            RuntimeError with its text.
    """
    if workers == 1 or len(arguments) <= 1:
        for index, each in enumerate(arguments):
            yield index, task(*each) if told is None else task(*each, told=partial(told, index))
        return
    waiting = deque(range(len(arguments)))
    lost = [0] * len(arguments)
    crew = [_Worker(f"worker {number}") for number in range(1, 1 + min(workers, len(arguments)))]
    try:
        while waiting or any(worker.task is not None for worker in crew):
            for worker in crew:
                if worker.task is None and waiting:
                    worker.give(waiting.popleft(), task, arguments, told)
            busy = [worker for worker in crew if worker.task is not None]
            connection.wait([worker.pipe for worker in busy], LOOK_SECONDS)
            for worker in busy:
                doing = worker.task
                assert doing is not None
                try:
                    answer = worker.answer()
                except _LostWorker as fault:
                    lost[doing] += 1
                    print(f"warning: task {doing + 1} of {len(arguments)}: {fault}.", file=sys.stderr)
                    if lost[doing] == TRIES:
                        raise WorldModelsError(
                            f"task {doing + 1} of {len(arguments)} lost {TRIES} workers: {fault}. If memory is short, lower "
                            "`compute.threads` or the number of lanes in params.yaml. Run again: what is done is kept."
                        ) from None
                    waiting.append(doing)  # behind the others: the next worker that is free has another task first
                    crew[crew.index(worker)] = _Worker(worker.name)
                else:
                    if answer is not None:
                        yield doing, answer[0]
    finally:
        for worker in crew:
            worker.end()


class _LostWorker(Exception):
    """A worker died or hung, and is gone."""


class _Far(NamedTuple):
    """What a worker says of its task while it is at it."""

    steps: int  # played since it last said something
    ended: int  # episodes that ended in these


class _Worker:
    """A process that does one task after the other, and what it is doing."""

    _told: TaskTold | None = None
    _heard = (0, 0)  # steps and ends that were told of its task

    def __init__(self, name: str) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(theirs, os.getpid()), name=name, daemon=True)
        self._process.start()
        theirs.close()
        self.name = name
        self.task: int | None = None
        self._stall = float(os.environ.get("WM_STALL_SECONDS", STALL_SECONDS))
        self._cpu = 0.0
        self._looked = self._moved = time.monotonic()

    def give(self, index: int, task: Callable[..., Any], arguments: Sequence[tuple], told: TaskTold | None) -> None:
        """Send it a task."""
        self.task, self._moved = index, time.monotonic()
        self._told, self._heard = told, (0, 0)
        with suppress(OSError):  # it died; the next look says so
            self.pipe.send((task, arguments[index], told is not None))

    def answer(self) -> tuple[Any] | None:
        """Return the result of its task, or None while there is none; _LostWorker if it died or hangs."""
        try:
            answer = self.pipe.recv() if self.pipe.poll() else None
        except (EOFError, OSError):
            self._process.join()
            code = self._process.exitcode or 0
            how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
            raise self._lost(f"{self.name} (process {self._process.pid}) died ({how})") from None
        if isinstance(answer, _Far):
            self._tell(*answer)
            return None
        if answer is not None:
            self.task = None
            result, error = answer
            if error is not None:
                raise error
            return (result,)
        if self._hangs():
            pid = self._process.pid or 0
            os.kill(pid, signal.SIGUSR1)  # its traceback, on stderr
            self._process.join(LOOK_SECONDS)
            self.end()
            raise self._lost(f"{self.name} (process {pid}) did nothing for {self._stall:g} s and was ended")
        return None

    def end(self) -> None:
        """End it at once."""
        self._process.kill()
        self._process.join()
        self.pipe.close()

    def _tell(self, steps: int, ended: int) -> None:
        self._heard = (self._heard[0] + steps, self._heard[1] + ended)
        if self._told is not None and self.task is not None:
            self._told(self.task, steps, ended)

    def _lost(self, how: str) -> _LostWorker:
        steps, ended = self._heard
        self._tell(-steps, -ended)
        return _LostWorker(how)

    def _hangs(self) -> bool:
        now = time.monotonic()
        if now - self._looked > self._stall / 10:  # seldom: it reads about every process of the machine
            self._looked = now
            cpu = _cpu_seconds(self._process.pid or 0)
            if cpu != self._cpu:
                self._cpu, self._moved = cpu, now
        return now - self._moved > self._stall


def _cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process and its children so far."""
    try:
        process = psutil.Process(pid)
        times = [each.cpu_times() for each in (process, *process.children(recursive=True))]
    except psutil.NoSuchProcess:
        return -1.0  # something ended just now: that is movement
    return sum(each.user + each.system for each in times)


class _Teller:
    """A ``Told`` in a worker, which passes on what it is told now and then."""

    def __init__(self, pipe: connection.Connection) -> None:
        self._pipe, self._steps, self._ended, self._said = pipe, 0, 0, time.monotonic()

    def __call__(self, steps: int, ended: int) -> None:
        self._steps, self._ended = self._steps + steps, self._ended + ended
        if time.monotonic() - self._said >= TELL_SECONDS:
            self.send()

    def send(self) -> None:
        """Pass on what is left."""
        self._pipe.send(_Far(self._steps, self._ended))
        self._steps, self._ended, self._said = 0, 0, time.monotonic()


def _work(pipe: connection.Connection, employer: int) -> None:
    """Do tasks until there are no more; in the worker's process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the employer, which ends this process
    when_gone(employer, lambda: os._exit(1))
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    while True:
        try:
            task, arguments, tells = pipe.recv()
        except EOFError:
            return
        try:
            if tells:
                teller = _Teller(pipe)
                result = task(*arguments, told=teller)
                teller.send()
            else:
                result = task(*arguments)
            pipe.send((result, None))
        except Exception as error:
            where = f"In a worker process:\n{''.join(traceback.format_exception(error))}"
            if not isinstance(error, WorldModelsError) and type(error).__module__ != "builtins":
                error = RuntimeError(f"{type(error).__name__}: {error}")  # that of a library may hold what no pipe takes
            error.add_note(where)
            pipe.send((None, error))
