"""What works for a process ends with it, on Linux and by the way of other systems."""

import os
import subprocess
import sys
import threading

import pytest

from worldmodels.compute import lifeline
from worldmodels.tracking import runs


@pytest.mark.parametrize("system", [sys.platform, "another"])
def test_the_end_of_a_process_is_noticed(system, monkeypatch):
    monkeypatch.setattr(lifeline.sys, "platform", system)
    noticed = threading.Event()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        lifeline.when_gone(process.pid, noticed.set)
        assert not noticed.wait(0.3)
        process.communicate(b"\n")
        assert noticed.wait(10)
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
    name = runs._process_name(os.getpid())
    assert runs._is_running(name)
    assert not runs._is_running("")
    number, _, began = name.partition("@")
    assert not runs._is_running(f"{number}@{float(began) - 3600:.0f}")
    with subprocess.Popen([sys.executable, "-c", "pass"]) as process:
        other = runs._process_name(process.pid)
    assert other.startswith(f"{process.pid}@")
    assert not runs._is_running(other)
