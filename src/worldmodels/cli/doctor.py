"""``wm doctor``: does this machine have what the pipeline needs? Every check really tries the thing."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Literal, NamedTuple

from worldmodels.errors import ParamsError
from worldmodels.tracking.git import git

REQUIRED = (
    "torch", "numpy", "pandas", "pyarrow", "pydantic", "ruamel.yaml", "safetensors", "cma", "gymnasium", "Box2D",
    "pygame-ce", "vizdoom", "matplotlib", "pillow", "Jinja2", "av", "tqdm", "typer", "dvc", "mlflow",
)  # fmt: skip
OPTIONAL = "envpool"
PYTHONS = ((3, 11), (3, 13))  # first and last version that the games have packages for
DISK_NEEDED, DISK_WANTED = 2, 10  # GB: preset quick; laptop and the DVC cache of several runs
PROBE_SECONDS = 120


class Verdict(NamedTuple):
    """What one check found."""

    name: str  # what was checked
    # ``ok``; ``warn``: works, but something is worth knowing; ``fail``: the pipeline cannot run
    status: Literal["ok", "warn", "fail"]
    detail: str  # what was found
    advice: str = ""  # what to do; empty if all is well

    def as_text(self) -> str:
        """As one line, and a second with the advice."""
        line = f"{self.status.ljust(4)}  {self.name.ljust(18)}  {self.detail}"
        return line + (f"\n{' ' * 26}-> {self.advice}" if self.advice else "")


def examine(root: Path) -> Iterator[Verdict]:
    """Run every check, and yield each verdict as soon as it is known."""
    yield check_python()
    yield from check_packages()
    yield check_params(root)
    yield check_rendering("ViZDoom", {"kind": "vizdoom"})
    yield check_rendering("CarRacing", {"kind": "carracing", "backend": "gymnasium"})
    yield check_gpu()
    yield check_disk(root)
    yield check_store(root)
    yield from check_dvc(root)


def check_python() -> Verdict:
    """Python's version."""
    found = sys.version.split()[0]
    if PYTHONS[0] <= sys.version_info[:2] <= PYTHONS[1]:
        return Verdict("Python", "ok", f"{found}, {os.cpu_count()} cores")
    first, last = (f"{major}.{minor}" for major, minor in PYTHONS)
    return Verdict("Python", "fail", found, f"install Python {first} to {last}: the games have packages for these")


def check_packages() -> Iterator[Verdict]:
    """The packages of the lock: all required ones in one line, the optional one in another."""
    versions = {name: _version(name) for name in (*REQUIRED, OPTIONAL)}
    optional, use = versions.pop(OPTIONAL), "optional: CarRacing eight times as fast in training"
    missing = [name for name, version in versions.items() if version is None]
    if missing:
        yield Verdict("packages", "fail", f"missing: {', '.join(missing)}", "`make setup` installs what the lock names")
    else:
        yield Verdict("packages", "ok", ", ".join(f"{name} {version}" for name, version in versions.items()))
    if optional:
        yield Verdict(OPTIONAL, "ok", f"{optional} ({use})")
    else:
        yield Verdict(OPTIONAL, "warn", f"not installed ({use})", f"pip install {OPTIONAL}, if you want it")


def check_params(root: Path) -> Verdict:
    """The params file."""
    from worldmodels.cli import presets

    try:
        return Verdict("params", "ok", presets.check_params(root).splitlines()[0])
    except ParamsError as error:
        first, *rest = str(error).splitlines()
        more = f" (and {len(rest)} more)" if rest else ""
        return Verdict("params", "fail", first + more, "`wm check` shows them all")


def check_rendering(name: str, game: dict[str, str]) -> Verdict:
    """Play a few steps of a game and look at its frames; in a process of its own, since engines can crash or hang."""
    code = f"from worldmodels.cli.doctor import probe; probe({json.dumps(game)})"
    try:
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PROBE_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return Verdict(name, "fail", f"no frame after {PROBE_SECONDS} s", "the engine hangs: is the machine out of memory?")
    said = (done.stderr if done.returncode else done.stdout).strip().splitlines()
    if done.returncode == 0 and said:
        return Verdict(name, "ok", said[-1])
    reason = said[-1] if said else f"the engine died with exit status {done.returncode}"
    advice = "`make setup` installs the games; on a bare Linux, ViZDoom and SDL may want `libgl1 libopenal1 libsdl2-2.0-0`"
    return Verdict(name, "fail", reason, advice)


def probe(game: dict[str, str]) -> None:
    """Play 12 random steps of a game, and print what was seen. Raises if the frames show nothing."""
    import time

    import numpy as np
    from pydantic import TypeAdapter

    from worldmodels.games.base import GameConfig
    from worldmodels.games.make import Game
    from worldmodels.games.sight import Sight

    config: GameConfig = TypeAdapter(Game).validate_python(game)
    env = config.make(scoring=True)
    random = np.random.default_rng(0)
    try:
        frames = [env.start([0])[0].copy()]
        began = time.perf_counter()
        for _ in range(12):
            action = random.uniform(-1, 1, (1, env.action_size)).astype(np.float32)
            frames.append(env.step(action).frames[0].copy())
        rate = 12 / (time.perf_counter() - began)
        sight = Sight()
        sight.see(np.stack(frames))
        sight.check(env.rules)
    finally:
        env.close()
    print(f"{env.backend}: frames show a picture (brightness {np.mean(frames):.0f}/255), {rate:.0f} steps/s in one game")


def check_gpu() -> Verdict:
    """A GPU that torch can use. None is no failure."""
    try:
        import torch
    except ImportError as error:
        return Verdict("GPU", "fail", f"torch does not load: {error}", "`make setup`")
    if torch.cuda.is_available():
        return Verdict("GPU", "ok", f"{torch.cuda.get_device_name(0)}, CUDA {torch.version.cuda}")
    return Verdict("GPU", "ok", "none; presets quick and laptop are made for the CPU, paper takes days without one")


def check_disk(root: Path) -> Verdict:
    """Free space on the project's disk."""
    free = shutil.disk_usage(root).free / 1e9
    detail, room = f"{free:.1f} GB free", "`dvc gc -w --all-experiments` drops what no run and no experiment uses"
    if free < DISK_NEEDED:
        return Verdict("disk", "fail", detail, f"free {DISK_NEEDED} GB at least; {room}")
    if free < DISK_WANTED:
        return Verdict("disk", "warn", detail, f"enough for quick; laptop wants {DISK_WANTED} GB; {room}")
    return Verdict("disk", "ok", detail)


def check_store(root: Path) -> Verdict:
    """MLflow's store answers."""
    from worldmodels.tracking.store import PREFIX, reason_of, redact, sqlite_file, tracking_uri

    uri = tracking_uri(root)
    file = sqlite_file(uri)
    if file is not None and not file.exists():
        return Verdict("MLflow store", "ok", f"{file.name} is not made yet; the first run makes it")
    try:
        import mlflow

        from worldmodels.tracking.registry import lost_champion

        mlflow.set_tracking_uri(uri)
        client = mlflow.MlflowClient(uri)
        found = f"{file.name if file else redact(uri)} answers: {len(client.search_experiments(max_results=100))} experiments"
        for model in client.search_registered_models(f"name LIKE '{PREFIX}%'", max_results=1000):
            what, _, way = lost_champion(model).partition(": ")
            if what:
                return Verdict("MLflow store", "warn", f"{found}; {what}", way)
        return Verdict("MLflow store", "ok", found)
    except Exception as error:  # whatever a server or a database throws: the verdict names it
        reason = f"{type(error).__name__}: {reason_of(error)}"
        advice = "results do not depend on MLflow; move mlflow.db away and run `wm track sync`, or check MLFLOW_TRACKING_URI"
        return Verdict("MLflow store", "warn", reason, advice)


def check_dvc(root: Path) -> Iterator[Verdict]:
    """DVC, and git below it."""
    for tool in ("git", "dvc"):
        if shutil.which(tool) is None and not (Path(sys.executable).parent / tool).exists():
            advice = "install git" if tool == "git" else "`make setup`, then `. .venv/bin/activate` or `make` targets"
            yield Verdict(tool, "fail", "not found", advice)
            return
    if not (root / ".dvc").is_dir() or not (root / "dvc.yaml").is_file():
        yield Verdict("DVC", "fail", "no pipeline in this folder or above", "run `wm` inside a clone of the project")
        return
    if not any((folder / ".git").exists() for folder in (root.resolve(), *root.resolve().parents)):
        advice = "clone the project with git instead of downloading it; or `git init`, then commit everything"
        yield Verdict("DVC", "fail", "no git repository here: DVC does not run without one", advice)
        return
    odd = sorted({letter for letter in str(root.resolve()) if letter == "#" or not letter.isascii()})
    if odd:
        advice = "`wm sweep` and `dvc exp run --temp` fail there, all else works: move the project to a plainer folder"
        yield Verdict("folder", "warn", f"its path holds {' '.join(odd)}", advice)
    if git(root, "rev-parse", "--is-shallow-repository") == "true":
        yield Verdict("clone", "warn", "shallow: DVC keeps no experiment in it", "`git fetch --unshallow` before `wm sweep`")
    locked = "dvc.lock is there" if (root / "dvc.lock").is_file() else "no dvc.lock yet: `make repro` runs the pipeline"
    yield Verdict("DVC", "ok", f"dvc {_version('dvc')}; {locked}")


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
