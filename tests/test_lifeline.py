"""What works for a process ends with it, on Linux and by the way of other systems."""

import os
import subprocess
import sys
import threading

import psutil
import pytest

from worldmodels.compute import lifeline
from worldmodels.tracking.runs import is_running


@pytest.mark.parametrize("system", [sys.platform, "another"])
def test_the_end_of_a_process_is_noticed(system, monkeypatch):
    monkeypatch.setattr(lifeline.sys, "platform", system)
    noticed = threading.Event()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        lifeline.when_gone(process.pid, noticed.set)
        assert not noticed.wait(0.3)
        process.communicate(b"\n")
        assert noticed.wait(60)
    gone = threading.Event()
    lifeline.when_gone(process.pid, gone.set)
    assert gone.is_set()


def test_callers_are_the_runner_and_the_shells_between():
    code = "from worldmodels.compute.lifeline import callers; print(*callers())"
    shell = ["sh", "-c", f"{sys.executable} -c '{code}'; true"]
    with subprocess.Popen(shell, stdout=subprocess.PIPE, text=True) as process:
        found = process.communicate(timeout=60)[0].split()
    assert found[:2] == [str(process.pid), str(os.getpid())] or found == [str(os.getpid()), str(process.pid)]


def test_a_run_is_alive_while_its_process_is_and_not_while_another_has_its_number():
    own = psutil.Process()
    assert is_running(f"{own.pid}@{own.create_time():.0f}")
    assert not is_running("")
    assert not is_running(f"{own.pid}@{own.create_time() - 3600:.0f}")
    with subprocess.Popen([sys.executable, "-c", "pass"]) as process:
        name = f"{process.pid}@{psutil.Process(process.pid).create_time():.0f}"
    assert not is_running(name)
