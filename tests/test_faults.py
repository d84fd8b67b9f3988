"""Faults, each injected for real: workers, the disk, damaged and hostile files, the end from outside."""

import json
import os
import pickle
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tasks
import torch
from lab import WAIT, environment, make_project, run, until
from test_cli import make_agent
from tiny import ROOT, tiny_params

from worldmodels.compute import local
from worldmodels.compute.local import TRIES, run_tasks
from worldmodels.errors import ArtifactError, ParamsError, WorldModelsError
from worldmodels.report.table import read_scores
from worldmodels.rollout.scores import episodes_table, read_blind, steps_learned, summarise
from worldmodels.shapes import Episode, Returns
from worldmodels.storage.checkpoint import Checkpoint
from worldmodels.storage.episodes import COLLECTED, EpisodeWriter, FrameReader
from worldmodels.storage.files import read_curve, read_json, read_table, write_bytes, write_curve, write_json, write_table
from worldmodels.storage.layout import AgentFiles, WorldModelFiles
from worldmodels.storage.weights import load_tensors, save_tensors


class TestWorkers:
    def test_a_worker_that_dies_is_named_and_its_task_is_done_by_another(self, tmp_path, capfd):
        done = dict(run_tasks(tasks.die_once, [(tmp_path / "mark", number) for number in range(5)], 2))
        assert done == {0: 0, 1: 1, 2: 4, 3: 9, 4: 16}
        assert "warning: task 3 of 5: worker " in (said := capfd.readouterr().err)
        assert "died (signal SIGKILL)" in said

    @pytest.mark.parametrize("workers", [1, 2])
    def test_the_steps_of_a_task_are_told_while_it_is_at_them_and_once_if_its_worker_is_lost(self, tmp_path, workers):
        heard: list[tuple[int, int, int]] = []
        marker = tmp_path / "mark"
        if workers == 1:
            marker.touch()  # this process is not to die
        played = run_tasks(
            tasks.play_four, [(marker, number) for number in range(4)], workers, lambda *told: heard.append(told)
        )
        told_before = [sum(steps > 0 for task, steps, _ in heard if task == number) for number, _ in played]
        assert min(told_before) >= 2
        sums = {number: np.sum([each[1:] for each in heard if each[0] == number], 0).tolist() for number in range(4)}
        assert sums == {key: [4, 1] for key in range(4)}
        assert any(steps < 0 for _, steps, _ in heard) is (workers == 2)

    def test_a_worker_that_hangs_is_named_with_its_traceback_and_its_task_done_by_another(self, tmp_path, capfd, monkeypatch):
        monkeypatch.setenv("WM_STALL_SECONDS", "8")
        monkeypatch.setattr(local, "LOOK_SECONDS", 10.0)  # its traceback has as much time
        done = dict(run_tasks(tasks.hang_once, [(tmp_path / "mark", number) for number in range(4)], 2))
        assert done == {0: 0, 1: 1, 2: 4, 3: 9}
        said = capfd.readouterr().err
        assert "did nothing for 8 s and was ended" in said
        assert "in wait_for_what_never_comes" in said

    def test_a_task_that_always_loses_its_worker_is_given_up(self, capfd):
        before = set(psutil.Process().children())
        with pytest.raises(WorldModelsError, match=rf"lost {TRIES} workers: worker . \(process \d+\) died \(exit code 7\)"):
            list(run_tasks(tasks.die, [(1,), (2,)], 2))
        left = set(psutil.Process().children()) - before
        assert not [each for each in left if "resource_tracker" not in " ".join(each.cmdline())], "only Python's own helper"

    def test_an_error_of_a_task_arrives_as_what_it_is_with_its_traceback(self):
        with pytest.raises(ZeroDivisionError, match="task 1") as caught:
            list(run_tasks(tasks.fail, [(1,), (1,)], 2))
        assert "in fail\n" in caught.value.__notes__[0]

    def test_an_error_that_cannot_be_sent_arrives_as_its_text(self):
        with pytest.raises(RuntimeError, match="Strange: task 1") as caught:
            list(run_tasks(tasks.fail_strangely, [(1,), (1,)], 2))
        assert "in fail_strangely\n" in caught.value.__notes__[0]

    def test_workers_end_with_a_parent_that_is_killed(self, tmp_path):
        code = "import tasks, pathlib; from worldmodels.compute.local import run_tasks\nif __name__ == '__main__':\n"
        code += f"    list(run_tasks(tasks.sit, [(pathlib.Path({str(tmp_path)!r}),)] * 2, 2))"
        script = tmp_path / "parent.py"
        script.write_text(code)
        path = {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT / 'tests'}"}
        with subprocess.Popen([sys.executable, script], env=os.environ | path) as parent:
            workers = until(
                lambda: len(found := [p for p in tmp_path.iterdir() if p.name.isdigit()]) == 2 and found, "two workers"
            )
            parent.kill()
        until(lambda: not any(psutil.pid_exists(int(worker.name)) for worker in workers), "the workers to end")


def flips(content: bytes, every: int = 1) -> Iterator[bytes]:
    """Yield a content with one bit flipped, in every so many bytes."""
    random = np.random.default_rng(0)
    for place in range(0, len(content), every):
        yield content[:place] + bytes([content[place] ^ 1 << random.integers(8)]) + content[place + 1 :]


def read_or_named(read: Callable[[Path], Any], path: Path, command: str) -> Any:
    """Return what is read, or None where the file is named as damaged, with the command that makes it again."""
    try:
        return read(path)
    except ArtifactError as error:
        said = str(error)
    assert f"{path} is damaged" in said
    assert f"`{command}` makes it again" in said
    return None


class TestDamage:
    """One bit is flipped in one byte after the other: the file is named as damaged, or what is read is what was written."""

    def test_of_a_table(self, tmp_path):
        path = tmp_path / "artifacts/agents/doom-0/returns.parquet"
        table = pd.DataFrame({"episode": range(4), "total": [1.5, 2.5, 0.1, 7.0], "world": list("abab")})
        write_table(path, table)
        content, named = path.read_bytes(), 0
        for flipped in [*flips(content, 5), content[:-100]]:
            path.write_bytes(flipped)
            found = read_or_named(read_table, path, "dvc repro initialise@doom")
            if found is not None:
                pd.testing.assert_frame_equal(found, table)
            named += found is None
        assert named > len(content) / 5 / 3

    def test_of_weights(self, tmp_path):
        path = tmp_path / "artifacts/world_models/doom-2/memory.safetensors"
        tensors = {"weight": torch.rand(3, 5), "bias": torch.rand(2).half()}
        save_tensors(path, tensors, {"hidden": 5, "heads": ["done"]})
        content = path.read_bytes()
        for flipped in [*flips(content), content[:-1]]:
            path.write_bytes(flipped)
            found = read_or_named(load_tensors, path, "dvc repro memory@doom-2")
            if found is not None:
                assert found[0].keys() == tensors.keys()
                assert all(torch.equal(found[0][name], tensors[name]) for name in tensors)
                assert (found[1]["hidden"], found[1]["heads"]) == (5, ["done"])

    def test_of_a_checkpoint_with_values_alone(self, tmp_path, capsys):
        path, values = tmp_path / "state.safetensors", {"fitness": [[1.25, 2.5, 300]]}
        Checkpoint(path, "one").save({}, values)
        for flipped in flips(path.read_bytes()):
            path.write_bytes(flipped)
            assert Checkpoint(path, "one").load()[1] in ({}, values)
        assert f"{path} is damaged: this stage begins anew" in capsys.readouterr().err

    def test_of_a_shard(self, tmp_path):
        (path,) = shards(tmp_path, [3])
        content = path.read_bytes()
        for flipped in flips(content, 1000):
            path.write_bytes(flipped)
            with pytest.raises(ArtifactError, match=r"shard-000.arrow is damaged \(its checksum is not the one"):
                FrameReader(tmp_path / "data.json")

    @pytest.mark.parametrize("name", ["metrics/doom-1.json", "metrics/doom-0.json", "artifacts/world_models/doom-1/data.json"])
    @pytest.mark.parametrize(
        "content",
        [b"", b"null", b"[]", b"3", b'"text"', b"{}", b"[" * 10**5, b"1" * 5000, b"\xff", b'{"shards": [{}], "real": {}}'],
    )
    def test_of_json_that_is_of_another_type(self, tmp_path, name, content):
        path = tmp_path / name
        write_bytes(path, content)
        readers = [FrameReader, lambda path: read_json(path, COLLECTED)] if path.name == "data.json" else [read_scores]
        command = {"doom-1.json": "evaluate@doom-1", "doom-0.json": "initialise@doom", "data.json": "collect@doom-1"}[path.name]
        for read in readers:
            assert read_or_named(read, path, f"dvc repro {command}") is None

    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"\xff\xfe",
            b"hello",
            b"phase,world\na,dream\n",
            b"\0" * 99,
            b"phase,world,steps\na,dream,1e999\n",
            b"a,b\n1,2,3\n4\n",
        ],
    )
    def test_of_a_curve_that_is_no_table_or_lacks_columns(self, tmp_path, content):
        path = tmp_path / "artifacts/agents/doom-1/controller.csv"
        write_bytes(path, content)
        read = lambda path: read_curve(path, ("phase", "world", "steps"))  # noqa: E731
        assert read_or_named(read, path, "dvc repro controller@doom-1") is None

    def test_of_a_curve_that_is_cut_or_flipped_gives_numbers_or_is_named(self, tmp_path):
        path, columns = tmp_path / "artifacts/agents/doom-1/controller.csv", ("phase", "world", "steps")
        rows = [{"generation": i, "phase": "1", "world": "dream", "mean": 1.5 * i, "steps": 100} for i in range(4)]
        write_curve(path, [*rows, {"generation": 3, "phase": "selection", "mean": 2.0}])
        content, named = path.read_bytes(), 0
        for harmed in [*flips(content), *(content[:end] for end in range(len(content)))]:
            path.write_bytes(harmed)
            found = read_or_named(lambda path: read_curve(path, columns), path, "dvc repro controller@doom-1")
            named += found is None
            if found is not None:
                assert all(isinstance(steps, int) for steps in steps_learned(found).values())
        assert named > 60


def test_damage_of_what_a_stage_only_writes_down_is_found_before_it_plays(collected):
    """The scores of blind policies for `calibrate` and `evaluate`, and the curve of the search for `evaluate`."""
    returns = collected / "artifacts/agents/doom-0/returns.parquet"
    whole, agent = returns.read_bytes(), collected / "artifacts/agents/doom-1/agent"
    evaluate = (sys.executable, "-m", "pipeline.evaluate", "key=doom-1", "env=doom", "world_model=doom-1", "seed=0")
    other = pd.DataFrame({"world": ["random"], "total": [1.0]}).to_parquet()
    make_agent(agent)
    try:
        for content in (b"", b"text", whole[: len(whole) // 2], other):
            returns.write_bytes(content)
            done = run(collected, *evaluate, check=False)
            assert done.returncode == 1
            assert "returns.parquet is damaged" in done.stderr
            assert "`dvc repro initialise@doom` makes it again" in done.stderr
            assert "Traceback" not in done.stderr
        returns.write_bytes(whole)
        (agent.parent / "controller.csv").write_text("text")
        done = run(collected, *evaluate, check=False)
        assert (done.returncode, "controller.csv is damaged" in done.stderr) == (1, True)
        assert "`dvc repro controller@doom-1` makes it again" in done.stderr
    finally:
        returns.write_bytes(whole)
        shutil.rmtree(agent.parent)


def test_the_scores_of_blind_policies_are_the_ones_of_their_episodes_and_a_flipped_bit_is_found(tmp_path):
    path = tmp_path / "artifacts/agents/doom-0/returns.parquet"
    random = np.random.default_rng(0)
    played = {
        name: Returns(random.random((1, 9)), *(np.ones((1, 9), np.int64),) * 2, np.arange(9)) for name in ("random", "still")
    }
    write_table(path, pd.concat([episodes_table(each, name) for name, each in played.items()], ignore_index=True))
    expected = {name: summarise(each) for name, each in played.items()}
    assert read_blind(path, played)[1] == expected
    with pytest.raises(ArtifactError, match="lacks the policy sweep"):
        read_blind(path, ["random", "sweep"])
    for flipped in flips(path.read_bytes(), 11):
        path.write_bytes(flipped)
        found = read_or_named(lambda path: read_blind(path)[1], path, "dvc repro initialise@doom")
        assert found in (None, expected)


def episode(seed: int, steps: int = 9) -> Episode:
    random = np.random.default_rng(seed)
    frames = random.integers(0, 255, (steps + 1, 64, 64, 3), np.uint8)
    return Episode(frames, random.random((steps, 1), np.float32), random.random(steps, np.float32), seed % 2 == 0, seed)


def shards(folder: Path, seeds: list[int], **options: Any) -> list[Path]:
    """Write episodes and their manifest; return the shards."""
    write_json(folder / "none.json", {"shards": []})
    writer = EpisodeWriter(folder / "episodes", actions=1, **options)
    for seed in seeds:
        writer.write(episode(seed), "random")
    writer.finish(folder / "data.json", folder / "none.json")
    return sorted((folder / "episodes").glob("*.arrow"))


class TestShardsUnderWay:
    SEEDS = tuple(range(11))

    def expected(self, folder: Path) -> dict[str, bytes]:
        shards(folder, list(self.SEEDS), shard_frames=30)
        return {path.name: path.read_bytes() for path in (folder / "episodes").iterdir()}

    @pytest.mark.parametrize("cuts", [(1,), (2, 3, 4), (3, 3, 10, 11)])
    def test_a_writer_that_goes_on_gives_the_same_bytes(self, tmp_path, cuts):
        expected = self.expected(tmp_path / "whole")
        state: dict[str, Any] = {}
        for cut in (*cuts, len(self.SEEDS)):
            writer = EpisodeWriter(tmp_path / "state", actions=1, shard_frames=30, state=state)
            for seed in self.SEEDS[len(writer.rows) : cut]:
                writer.write(episode(seed), "random")
            state = json.loads(json.dumps(writer.state()))
            if writer._open and cut != len(self.SEEDS):  # what comes after the state, and is cut off
                writer._open.append(pa.record_batch([[], [], [], [], []], schema=writer._schema))
        write_json(tmp_path / "none.json", {"shards": []})
        writer.finish(tmp_path / "data.json", tmp_path / "none.json", tmp_path / "episodes")
        assert {path.name: path.read_bytes() for path in (tmp_path / "episodes").iterdir()} == expected
        assert len(FrameReader(tmp_path / "data.json")) == len(self.SEEDS)

    @pytest.mark.parametrize(("harm", "left"), [(0, 0), (1, 3), (3, 9)])
    def test_a_damaged_one_is_named_and_only_what_is_from_there_on_is_played_again(self, tmp_path, capsys, harm, left):
        writer = EpisodeWriter(tmp_path, actions=1, shard_frames=30)
        for seed in self.SEEDS:
            writer.write(episode(seed), "random")
        path = tmp_path / f"shard-{harm:03d}.arrow"
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
        again = EpisodeWriter(tmp_path, actions=1, shard_frames=30, state=writer.state())
        assert len(again.rows) == left
        assert f"{path} is damaged" in capsys.readouterr().err


class Hostile:
    """Unpickled, it leaves a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


class TestHostileFiles:
    """What is loaded runs no code: each file would leave a mark."""

    @pytest.fixture(params=["pickle", "torch"])
    def content(self, tmp_path, request) -> bytes:
        torch.save(Hostile(tmp_path / "mark"), tmp_path / "saved")
        return pickle.dumps(Hostile(tmp_path / "mark")) if request.param == "pickle" else (tmp_path / "saved").read_bytes()

    def test_a_pickle_in_the_place_of_any_file_is_refused(self, tmp_path, content, capsys):
        def shard(path: Path) -> None:
            manifest = tmp_path / "data.json"
            write_json(manifest, {"shards": [{"path": str(path), "sha256": "", "frames": 1}]})
            FrameReader(manifest, verify=False)

        path = tmp_path / "hostile"
        path.write_bytes(content)
        for read in (load_tensors, read_table, read_json, shard):
            with pytest.raises(ArtifactError, match="hostile is damaged"):
                read(path)
        assert Checkpoint(path, "one").load() == ({}, {})
        assert not (tmp_path / "mark").exists()

    def test_an_extension_type_of_arrow_is_not_unpickled(self, tmp_path):
        # CVE-2023-47248: reading such a file once ran what is in it.
        hidden = pickle.dumps(Hostile(tmp_path / "mark"))
        hostile = {"ARROW:extension:name": "arrow.py_extension_type", "ARROW:extension:metadata": hidden}
        schema = pa.schema([pa.field("frame", pa.binary(4), metadata=hostile)])
        table = pa.table([pa.array([b"abcd"], pa.binary(4))], schema=schema)
        pq.write_table(table, tmp_path / "table.parquet")
        with pa.ipc.new_file(str(tmp_path / "shard.arrow"), schema) as file:
            file.write_table(table)
        write_json(tmp_path / "data.json", {"shards": [{"path": str(tmp_path / "shard.arrow"), "sha256": "", "frames": 1}]})
        with pytest.raises(ArtifactError):
            read_table(tmp_path / "table.parquet")
        FrameReader(tmp_path / "data.json", verify=False)
        assert not (tmp_path / "mark").exists()

    @pytest.mark.parametrize("key", ["../x", "/etc", "", "a/b", ".", "..", ".git", "doom-1\n", "doom-1\0"])
    def test_a_key_cannot_lead_out_of_the_artifacts(self, key):
        for kind in (AgentFiles, WorldModelFiles):
            with pytest.raises(ParamsError, match="cannot be a key"):
                kind(key)


def small_params() -> dict[str, Any]:
    """Return tiny params whose stages before V last long enough to be disturbed."""
    params = tiny_params()
    params["compute"]["threads"] = 2
    params["doom"]["collect"]["first_episodes"] = 24
    params["doom"]["evaluate"]["episodes"] = 2000
    return params


OFTEN = {"WM_CHECKPOINT_SECONDS": "0"}
INITIALISE = (sys.executable, "-m", "pipeline.initialise", "key=doom-0", "env=doom")
COLLECT = (
    sys.executable,
    "-m",
    "pipeline.collect",
    "key=doom-1",
    "env=doom",
    "after=doom-0",
    "player=doom-0",
    "explorer=doom-0",
)


@pytest.fixture(scope="module")
def collected(tmp_path_factory) -> Path:
    """A project whose random policy has played, and what an undisturbed collection makes of it."""
    params = small_params()
    params["doom"]["evaluate"]["episodes"] = 2
    folder = make_project(tmp_path_factory.mktemp("collected") / "one", params)
    run(folder, *INITIALISE)
    run(folder, *COLLECT)
    (folder / "artifacts/world_models/doom-1").rename(folder / "undisturbed")
    return folder


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


class TestFullDisk:
    @pytest.fixture
    def small_disk(self, collected):
        """A disk of 1 MB where checkpoints and shards grow; called with a number of bytes, it is as large as that."""
        state = collected / ".state"
        state.mkdir(exist_ok=True)
        command = ["mount", "-t", "tmpfs", "-o", "size=1000000", "none", str(state)]
        if subprocess.run(command, check=False, capture_output=True).returncode:
            pytest.skip("a disk can be mounted by root only")
        yield lambda size: subprocess.run(["mount", "-o", f"remount,size={size}", str(state)], check=True)
        subprocess.run(["umount", str(state)], check=True)

    def test_at_a_shard_the_stage_says_so_and_goes_on_when_there_is_room(self, collected, small_disk):
        done = run(collected, *COLLECT, check=False, **OFTEN)
        assert done.returncode == 1
        assert "No space left on device. Make room on the disk; then `dvc repro collect@doom-1` goes on" in done.stderr
        assert "Traceback" not in done.stderr
        small_disk(500_000_000)
        assert "going on from" in run(collected, *COLLECT, **OFTEN).stderr
        assert files(collected / "artifacts/world_models/doom-1") == files(collected / "undisturbed")
        assert not list((collected / ".state").iterdir())

    def test_at_a_checkpoint_and_at_the_database_of_mlflow_the_stage_goes_on_without(self, collected, small_disk):
        with suppress(OSError), (collected / ".state/ballast").open("wb", buffering=0) as ballast:
            while ballast.write(b"x" * 4096):
                pass
        kept = files(collected / "artifacts/agents/doom-0")
        store = {"MLFLOW_TRACKING_URI": f"sqlite:///{collected}/.state/mlflow.db"}
        said = run(collected, *INITIALISE, WM_TRACKING="on", **OFTEN, **store).stderr
        assert "warning: MLflow" in said or "not tracked further" in said
        assert "warning: no checkpoint ([Errno 28] No space left on device" in said
        assert "Traceback" not in said
        assert files(collected / "artifacts/agents/doom-0") == kept

    def test_at_an_out_the_stage_says_so_and_leaves_nothing_half_written(self, tmp_path):
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
        try:
            with pytest.raises(OSError, match="File too large"):
                write_bytes(tmp_path / "out", b"x" * 2000)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
        assert not list(tmp_path.iterdir())


def statuses(folder: Path) -> list[str]:
    """Return how the stages' runs in the project's MLflow store stand."""
    try:
        with sqlite3.connect(f"file:{folder / 'mlflow.db'}?mode=ro", uri=True, timeout=30) as store:
            query = "select status from runs join tags using (run_uuid) where key = 'wm.kind' and value = 'stage'"
            return [row[0] for row in store.execute(query)]
    except sqlite3.OperationalError:
        return []


def with_makefile(folder: Path) -> None:
    """Let `make repro` find everything set up."""
    for name in ("Makefile", "requirements.lock", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
    (folder / ".venv/bin").mkdir(parents=True)
    (folder / ".venv/bin/python").touch()  # cannot be run: the next on the path is
    (folder / ".venv/.setup").touch()


def family_of(folder: Path) -> list[psutil.Process]:
    """Return all processes that were started for a project, wherever they hang now: its path is in their environment."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if any(str(folder) in value for value in process.environ().values()) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_stage_that_is_stopped_while_it_still_imports_says_nothing(sent):
    with subprocess.Popen(INITIALISE, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        until(lambda: "libtorch" in Path(f"/proc/{process.pid}/maps").read_text(), "the import of torch")
        process.send_signal(sent)
        assert process.communicate(timeout=WAIT) == ("", None)
    assert process.returncode == -sent


class TestTheEndFromOutside:
    """Whoever is told to end, all end: within seconds, the state saved, the run in MLflow marked, and the way on named."""

    @pytest.mark.parametrize(
        ("command", "target", "sent", "named"),
        [
            ("make", "group", signal.SIGINT, "SIGINT"),  # Ctrl-C
            ("dvc", "leader", signal.SIGTERM, "SIGTERM"),
            pytest.param("dvc", "group", signal.SIGINT, "SIGINT", marks=pytest.mark.slow),
            pytest.param("dvc", "leader", signal.SIGKILL, "SIGTERM", marks=pytest.mark.slow),
            pytest.param("make", "leader", signal.SIGTERM, "SIGTERM", marks=pytest.mark.slow),
            pytest.param("make", "leader", signal.SIGKILL, "SIGTERM", marks=pytest.mark.slow),
            pytest.param("stage", "leader", signal.SIGTERM, "SIGTERM", marks=pytest.mark.slow),
            pytest.param("stage", "leader", signal.SIGINT, "SIGINT", marks=pytest.mark.slow),
        ],
    )
    def test_all_end(self, tmp_path, command, target, sent, named):
        folder = make_project(tmp_path / "one", small_params())
        with_makefile(folder)
        (folder / "tmp").mkdir()
        line = {
            "make": ["make", "repro", "TARGET=initialise@doom"],
            "dvc": ["dvc", "repro", "initialise@doom"],
            "stage": INITIALISE,
        }[command]
        variables = environment(folder) | OFTEN | {"TMPDIR": str(folder / "tmp"), "WM_TRACKING": "on"}
        log, state = folder / "log", folder / ".state/initialise-doom-0.safetensors"
        with log.open("w") as said, subprocess.Popen(
            line, cwd=folder, env=variables, stdout=said, stderr=said, start_new_session=True
        ) as process:  # fmt: skip
            try:
                until(lambda: (state.exists() and statuses(folder) == ["RUNNING"]) or process.poll() is not None, "the stage")
                assert process.poll() is None, log.read_text()
                family = family_of(folder)
                assert len(family) >= 3, "the stage and its workers"
                start = time.monotonic()
                (os.killpg if target == "group" else os.kill)(process.pid, sent)
                psutil.wait_procs(family, timeout=WAIT)
                until(lambda: process.poll() is not None and not family_of(folder), "all to end")
            finally:
                process.kill()
        print(f"{command} {target} {sent.name}: all gone after {time.monotonic() - start:.1f} s")
        text = log.read_text()
        assert f"initialise: ended by {named}. `dvc repro initialise@doom` goes on where it was." in text
        assert "Traceback" not in text.replace("resource_tracker", "")
        assert load_tensors(state)[1]["values"]["played"]
        assert not list(folder.rglob("*.partial"))
        assert not (folder / "metrics/doom-0.json").exists()
        assert not [path for path in (folder / "tmp").glob("worldmodels-*") if path.name != f"worldmodels-{os.getuid()}"]
        assert statuses(folder) == ["KILLED"]
        assert "initialise@doom" in run(folder, "dvc", "status", "initialise@doom").stdout
