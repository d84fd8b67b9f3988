"""Minutes to hours, behind ``-m slow``: the whole pipeline killed, at once, and on more data than memory."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from contextlib import suppress

import numpy as np
import psutil
import pytest
import yaml
from lab import environment, make_project, run, until
from test_faults import OFTEN, family_of, statuses
from tiny import ROOT, tiny_params

pytestmark = pytest.mark.slow

TRACKED = {"WM_TRACKING": "on"}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The tiny chain on the real games, run once."""
    folder = make_project(tmp_path_factory.mktemp("undisturbed") / "one", tiny_params())
    run(folder, "dvc", "repro")
    return folder


def test_a_pipeline_killed_in_every_stage_ends_with_the_same_lock(undisturbed, tmp_path):
    folder, log = make_project(tmp_path / "killed", tiny_params()), tmp_path / "log"
    variables = environment(folder) | OFTEN | TRACKED
    random, killed, resumed = np.random.default_rng(), Counter[str](), 0
    while True:
        with log.open("w") as said, subprocess.Popen(
            ["dvc", "repro"], cwd=folder, env=variables, stdout=said, stderr=said, start_new_session=True
        ) as process:  # fmt: skip

            def stages() -> list[str]:
                return re.findall(r"Running stage '([^']+)'", log.read_text())

            while process.poll() is None and all(stage in killed for stage in stages()):
                time.sleep(0.1)
            end = time.monotonic() + random.uniform(0, 8)
            while process.poll() is None and time.monotonic() < end:
                time.sleep(0.05)
            ended = process.poll() is not None
            if not ended:
                os.killpg(process.pid, signal.SIGKILL)
        resumed += log.read_text().count("going on from")
        if ended:
            break
        killed[stages()[-1]] += 1
        until(lambda: not family_of(folder), "all processes to end with those that were killed")
    assert process.returncode == 0, log.read_text()[-3000:]
    print(f"{sum(killed.values())} kills in {len(killed)} stages, {resumed} times gone on from a checkpoint: {dict(killed)}")
    assert sum(killed.values()) >= 20
    assert {stage.split("@")[0] for stage in killed} >= {"initialise", "collect", "vision", "memory", "controller", "evaluate"}
    here, there = (yaml.safe_load((one / "dvc.lock").read_text()) for one in (folder, undisturbed))
    assert here == there
    assert not list((folder / ".state").iterdir())
    run(folder, "wm", "track", "sync")
    stages = len(yaml.safe_load((folder / "dvc.lock").read_text())["stages"])
    assert statuses(folder).count("FINISHED") == stages
    assert "RUNNING" not in statuses(folder)


def test_two_evaluations_a_pipeline_and_the_pages_of_mlflow_at_once(undisturbed):
    params = yaml.safe_load((undisturbed / "params.yaml").read_text())
    params["carracing"]["memory"]["optimiser"]["learning_rate"] *= 2
    (undisturbed / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    port = "5947"
    evaluate = ["wm", "evaluate", "doom-2", "--episodes", "6", "--json"]
    commands = [["wm", "track", "ui", "--port", port], evaluate, evaluate, ["dvc", "repro"]]
    variables = environment(undisturbed) | TRACKED
    pages, *others = [
        subprocess.Popen(
            command,
            cwd=undisturbed,
            env=variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for command in commands
    ]
    try:
        one, two, pipeline = ((*process.communicate(timeout=1500), process.returncode) for process in others)
        for _, error, code in (one, two, pipeline):
            assert code == 0, error[-3000:]
        assert json.loads(one[0])["returns"] == json.loads(two[0])["returns"]
        assert "memory@carracing-1" in pipeline[0]
        until(lambda: answer(port, "127.0.0.1") == 200, "MLflow's pages")
        assert answer(port, "evil.example") == 403
        server = psutil.Process(pages.pid)
        listening = [
            each.laddr.ip
            for process in (server, *server.children(recursive=True))
            for each in process.net_connections("inet")
            if each.status == psutil.CONN_LISTEN
        ]
        assert set(listening) == {"127.0.0.1"}
    finally:
        for process in psutil.Process(pages.pid).children(recursive=True):
            process.terminate()
        pages.terminate()
        pages.communicate()
    run(undisturbed, "wm", "track", "sync")
    assert "RUNNING" not in statuses(undisturbed)
    assert "integrity ok" in run(undisturbed, sys.executable, "-c", INTEGRITY).stdout


INTEGRITY = "import sqlite3; print('integrity', *sqlite3.connect('mlflow.db').execute('pragma integrity_check').fetchone())"


def answer(port: str, host: str) -> int:
    """Return the status with which the server answers a request for this host; 0 where it does not yet."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/api/2.0/mlflow/experiments/search?max_results=1", headers={"Host": host}
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as reply:
            return reply.status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


SOAK_MINUTES = float(os.environ.get("WM_SOAK_MINUTES", "30"))


def test_the_quick_preset_again_and_again_leaves_nothing_behind(tmp_path):
    params = yaml.safe_load((ROOT / "presets/quick.yaml").read_text())
    params["compute"]["threads"] = 1  # beside others, two threads wait for each other
    folder = make_project(tmp_path / "soaked", params)
    (folder / "tmp").mkdir()
    variables = environment(folder) | TRACKED | {"TMPDIR": str(folder / "tmp")}
    rounds: list[dict[str, tuple[float, int]]] = []
    locks, kept, end = [], [], time.monotonic() + 60 * SOAK_MINUTES
    while time.monotonic() < end or len(rounds) < 2:
        peaks: dict[str, tuple[float, int]] = {}
        with (tmp_path / "log").open("w") as said, subprocess.Popen(
            ["dvc", "repro", "--force"], cwd=folder, env=variables, stdout=said, stderr=said, start_new_session=True
        ) as process:  # fmt: skip
            while process.poll() is None:
                for stage, memory, files in usage(family_of(folder)):
                    before = peaks.get(stage, (0.0, 0))
                    peaks[stage] = (max(before[0], memory), max(before[1], files))
                time.sleep(1)
        assert process.returncode == 0, (tmp_path / "log").read_text()[-3000:]
        until(lambda: not family_of(folder), "all processes to end")
        assert not list((folder / ".state").iterdir())
        assert not list(folder.rglob("*.partial"))
        rounds.append(peaks)
        locks.append((folder / "dvc.lock").read_bytes())
        left = sum(1 for _ in (folder / "tmp").rglob("*"))
        print(f"round {len(rounds)}: {json.dumps(peaks)}; {left} files in the folder for temporary ones")
        kept.append(left)
    assert len(set(locks)) == 1
    assert kept[-1] == kept[0], "temporary files are left behind"
    for stage, (memory, files) in rounds[-1].items():
        first_memory, first_files = rounds[0][stage]
        assert memory < 1.1 * first_memory + 30, f"{stage}: {first_memory} MB of memory at first, {memory} MB at last"
        assert files <= first_files + 10, f"{stage}: {first_files} open files at first, {files} at last"


def usage(family: list[psutil.Process]) -> list[tuple[str, float, int]]:
    """Return of every stage that is at work: its name, the memory that it has for itself in MB, its open files."""
    found = []
    for process in family:
        with suppress(psutil.Error):
            line = process.cmdline()
            if "-m" in line and line[line.index("-m") + 1].startswith("pipeline."):
                memory = process.memory_info()
                found.append(
                    (" ".join(line[line.index("-m") + 1 :][:2]), (memory.rss - memory.shared) / 1e6, process.num_fds())
                )
    return found


TRAIN = """
import sys, threading, time
from pathlib import Path
import numpy as np, torch
from test_resume import optimiser, quiet
from worldmodels.vision.model import VisionConfig, VisionLossConfig
from worldmodels.shapes import Episode
from worldmodels.storage.episodes import EpisodeWriter, FrameReader
from worldmodels.storage.files import write_json
from worldmodels.vision.training import VisionTraining, new_vision, train_vision

folder, frames = Path(sys.argv[1]), int(sys.argv[2])
torch.set_num_threads(1)
write_json(folder / "none.json", {"shards": []})
writer = EpisodeWriter(folder / "episodes", actions=1)
random = np.random.default_rng(0)
for seed in range(frames // 1000):
    pictures = np.repeat(random.integers(0, 255, (1000, 8, 8, 3), np.uint8), 8, 1).repeat(8, 2)
    writer.write(Episode(pictures, np.zeros((999, 1), np.float32), np.ones(999, np.float32), True, seed), "random")
writer.finish(folder / "data.json", folder / "none.json")
del writer, pictures
peak = [0]
def own():  # what the process has for itself: not the pages of files that it has mapped
    status = Path("/proc/self/status").read_text()
    return int(status.split("RssAnon:")[1].split()[0])
def watch():
    while True:
        peak[0] = max(peak[0], own())
        time.sleep(0.01)
threading.Thread(target=watch, daemon=True).start()
loss = VisionLossConfig(kl_tolerance=0.5, pixel_weight=1.0)
config = VisionTraining(model=VisionConfig(latent=4), loss=loss, optimiser=optimiser())
train_vision(new_vision(config.model, 1), FrameReader(folder / "data.json"), config, seed=1, updates=range(12), observe=quiet)
print(peak[0] // 1024)
"""


def test_the_memory_that_training_takes_does_not_depend_on_the_number_of_frames(tmp_path):
    path = f"{ROOT / 'src'}:{ROOT / 'tests'}"
    peaks = {}
    for frames in (40_000, 80_000, 160_000):
        folder = tmp_path / str(frames)
        folder.mkdir()
        peaks[frames] = int(run(folder, sys.executable, "-c", TRAIN, str(folder), str(frames), PYTHONPATH=path).stdout)
        print(f"{frames} frames, {frames * 12_288 / 1e6:.0f} MB: {peaks[frames]} MB of memory at most")
    assert max(peaks.values()) < 1.1 * min(peaks.values())
    assert peaks[160_000] < 160_000 * 12_288 / 1e6 / 1.5, "the data are larger than the memory"
