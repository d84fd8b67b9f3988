"""``wm replicate``: a preset from nothing with several seeds, each in a clone of its own, and what they say together."""

import json
import math
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import yaml

from worldmodels.cli.folder import REPLICAS, REPLICAS_PAGE
from worldmodels.cli.presets import preset_file, use_preset
from worldmodels.cli.side_by_side import Command, games_at_a_time, own_code, run_together, stages_of
from worldmodels.compute.cores import cores
from worldmodels.errors import ParamsError, WorldModelsError
from worldmodels.forecast import RATES, forecast, frames_collected, read_rates, span
from worldmodels.params import PARAMS_FILE
from worldmodels.project import Project, load_project
from worldmodels.report.several import WORDS, Summary, several_page, summary
from worldmodels.report.table import align
from worldmodels.storage.files import write_bytes, write_json
from worldmodels.storage.layout import NO_STUDY, WorldModelFiles
from worldmodels.tracking.course import TIMES, read_times, seconds_left
from worldmodels.tracking.store import StoreError, is_off

DONE = "done-"
"""Beginning of the name of a file in the folder of a seed; a game that is done, and whose frames are removed, follows."""
FRAME_BYTES = 4_000
"""A frame of 64x64 on the disk: 1,000 (CarRacing) to 3,500 (Take Cover) were measured."""
KEPT_BYTES = 500_000_000
"""What stays of a seed and game, at most: models, latents, films."""


class Replica(NamedTuple):
    """One seed."""

    seed: int
    folder: Path

    def done(self, games: Sequence[str]) -> bool:
        """Return whether all of these games was computed."""
        return all((self.folder / f"{DONE}{game}").exists() for game in games)

    def times(self) -> dict[str, tuple[float, float]]:
        """Return stage -> the seconds that were forecast, and those that it took."""
        return dict(read_times(self.folder / TIMES))


def replicate(root: Path, preset: str, seeds: Sequence[int], games: Sequence[str], *, dry: bool = False) -> None:
    """Compute what is missing, seed by seed; print, write as a page and track what all seeds say together, game by game.

    Two seeds are computed at a time if the preset asks for so few threads, and one seed's games leave cores free. The same
    command goes on after an interruption. A seed that is done loses its frames: they are most of what it has on the disk.

    Args:
        root: the project's folder. Seeds are clones of its last commit, in ``replicas/``.
        preset: in presets/.
        seeds: of all chance.
        games: environments; none for all.
        dry: only say what it would take.

    Raises:
        ParamsError: the preset, a game or the folder cannot be used.
        WorldModelsError: the disk is too small, or a seed failed.
    """
    base = (root / REPLICAS / preset).resolve()
    replicas = [Replica(seed, base / f"seed-{seed}") for seed in seeds]
    project = load_project(preset_file(root, preset))
    if unknown := [game for game in games if game not in project.environments]:
        raise ParamsError(f"the preset {preset} has no game `{unknown[0]}`. It has: {', '.join(project.environments)}.")
    if project.recordings:
        raise ParamsError(f"the preset {preset} learns from recordings, which a clone does not have.")
    names = list(games) or project.environments
    todo = [replica for replica in replicas if not replica.done(names)]
    at_a_time = games_at_a_time(project) if not games else 1  # of one seed
    places = max(1, cores() // (project.compute.threads * max(1, at_a_time)))
    print(
        f"{len(todo)} of {len(replicas)} seeds to compute{_forecast(root, project, names, replicas, todo, places)}.", flush=True
    )
    if dry:
        return
    for replica in todo:
        _prepare(root, preset, replica)
    targets = [f"evaluate@{key}" for key, agent in project.agents.items() if agent.env in games]
    command = [sys.executable, "-m", "worldmodels.cli.main", "repro", *targets]

    def ended(number: int, code: int) -> None:
        if code == 0:
            _finish(todo[number].folder, project, names)

    codes = run_together([Command(command, replica.folder, own_code()) for replica in todo], places, ended)
    if failed := [str(replica.seed) for replica, code in zip(todo, codes, strict=True) if code]:
        raise WorldModelsError(f"not done: seed {', '.join(failed)}, see above. The same command goes on there.")
    _tell(root, base, project, replicas)


def parse_seeds(text: str) -> list[int]:
    """Return seeds from text, in ascending order.

    >>> parse_seeds("1, 0,2")
    [0, 1, 2]

    Raises:
        ParamsError: it is no list of different whole numbers.
    """
    try:
        seeds = [int(part) for part in text.split(",")]
    except ValueError:
        seeds = []
    if not seeds or len(set(seeds)) < len(seeds) or min(seeds) < 0 or max(seeds) >= 2**31:
        raise ParamsError(f"--seeds {text!r}: write different numbers from 0 with commas between them, such as 0,1,2.")
    return sorted(seeds)


def finished(root: Path, preset: str) -> list[Path]:
    """Return the folders of the seeds of a preset that are done.

    Raises:
        ParamsError: there is none.
    """
    found = sorted({path.parent for path in (root / REPLICAS / preset).glob(f"seed-*/{DONE}*")})
    if not found:
        raise ParamsError(f"no seed of {preset} is done. `wm replicate {preset}` computes them.")
    return found


def _prepare(root: Path, preset: str, replica: Replica) -> None:
    """Make a seed's clone if there is none, with its params and the cache that all seeds share."""
    head = _git(root, "rev-parse", "HEAD")
    if not replica.folder.exists():
        edited = _git(root, "status", "--porcelain", "--untracked-files=no", "--", ".", f":!{PARAMS_FILE}", ":!dvc.lock")
        if edited:
            raise ParamsError(f"these edits are not committed, and replicas are clones of the last commit:\n{edited}")
        partial = replica.folder.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        _git(root, "clone", "--quiet", "--no-tags", str(root.resolve()), str(partial))
        use_preset(partial, preset, [], force=True)
        params = yaml.safe_load((partial / PARAMS_FILE).read_text())
        write_bytes(partial / PARAMS_FILE, yaml.safe_dump(params | {"seed": replica.seed}, sort_keys=False).encode())
        write_bytes(partial / ".dvc/config.local", f"[cache]\n    dir = {root.resolve() / REPLICAS / 'cache'}\n".encode())
        partial.rename(replica.folder)
    elif (there := _git(replica.folder, "rev-parse", "HEAD")) != head:
        told = f"note: seed {replica.seed} is of commit {there[:7]}, and goes on with its code."
        print(f"{told} Without {replica.folder} it begins anew.")


def _forecast(
    root: Path, project: Project, games: Sequence[str], replicas: Sequence[Replica], todo: Sequence[Replica], places: int
) -> str:
    """Return how long it will take and how much of the disk, as the end of a sentence.

    Raises:
        WorldModelsError: so much is not free.
    """
    if not todo:
        return ""
    rates = next(iter(read_rates(root / RATES).values()), {})
    expected = forecast(project, rates)
    known = {stage: times for replica in replicas for stage, times in replica.times().items()}
    stages, seconds = [stage for game in games for stage in stages_of(project, game)], 0.0
    for replica in todo:
        left = [stage for stage in stages if stage not in replica.times()]
        measured = seconds_left(expected, left, known)
        seconds += sum(expected[stage] for stage in left) if math.isnan(measured) else measured
    frames = sum(frames_collected(project, rates, game) for game in games)
    # Twice: in the folder and in the cache.
    seen = 0.0 if math.isnan(frames) else 2 * frames * FRAME_BYTES * min(places, len(todo))
    needed, free = seen + len(todo) * len(games) * KEPT_BYTES, shutil.disk_usage(root).free
    if needed > free:
        raise WorldModelsError(f"{len(todo)} seeds need about {needed / 1e9:.0f} GB of disk; {free / 1e9:.0f} GB are free.")
    return f": about {span(seconds / max(1, cores() // project.compute.threads))} here, and {needed / 1e9:.1f} GB of disk"


def _finish(folder: Path, project: Project, games: Sequence[str]) -> None:
    """Remove what was seen in these games, from the folder and from the cache: all that needs it is computed. Note it."""
    stages = yaml.safe_load((folder / "dvc.lock").read_text())["stages"]
    cache = folder.parents[1] / "cache/files/md5"

    def cached(md5: str) -> Path:
        return cache / md5[:2] / md5[2:]

    for key, entry in project.world_models.items():
        made = stages.get(f"collect@{key}")  # not of a world model that no agent needs
        if entry.env not in games or made is None:
            continue
        episodes = WorldModelFiles(key, folder).episodes
        shutil.rmtree(episodes, ignore_errors=True)
        path = episodes.relative_to(folder).as_posix()
        listing = cached(next(out["md5"] for out in made["outs"] if out["path"] == path))
        if listing.exists():
            for each in json.loads(listing.read_text()):
                cached(each["md5"]).unlink(missing_ok=True)
            listing.unlink()
    # DVC takes what does not depend on the seed from a seed that is done: it took as long as there.
    times = dict(read_times(folder / TIMES))
    for other in {mark.parent for mark in folder.parent.glob(f"seed-*/{DONE}*")}:
        there = yaml.safe_load((other / "dvc.lock").read_text())["stages"]
        times = {
            stage: took for stage, took in read_times(other / TIMES).items() if stages.get(stage) == there.get(stage, "")
        } | times
    write_json(folder / TIMES, times)
    for game in games:
        (folder / f"{DONE}{game}").touch()


def _tell(root: Path, base: Path, project: Project, replicas: Sequence[Replica]) -> None:
    """Print what the seeds say together of each game that they have done, write it as a page, and track it."""
    done = {game: [replica for replica in replicas if replica.done([game])] for game in project.environments}
    found = {game: _summary(project, game, own) for game, own in done.items() if own}
    pictures = {game: base / f"{game}.png" for game in found}
    for game, told in found.items():
        write_bytes(pictures[game], told.png)
        print(f"\n{align(told.table, right=range(1, 6))}\n{told.note}", flush=True)
    write_bytes(base / REPLICAS_PAGE, several_page(base.name, list(found.values())))
    print(f"\n{WORDS}\n\nWith figures: {base / REPLICAS_PAGE}", flush=True)
    if is_off():
        return
    # Here: it loads MLflow, for which `wm ledger`, which reads seeds too, does not wait.
    from worldmodels.tracking.several import log_seeds

    try:
        for game, told in found.items():
            log_seeds(root, game, base.name, told, pictures[game])
    except StoreError as error:
        print(f"warning: {error} The same command logs the table later.", file=sys.stderr)


def _summary(project: Project, game: str, replicas: Sequence[Replica]) -> Summary:
    """Return what these seeds say together of a game."""
    keys = [key for key, agent in project.agents.items() if agent.env == game and agent.study == NO_STUDY]
    stages, config = set(stages_of(project, game)), project.sections[game].game
    minutes = sum(took for replica in replicas for stage, (_, took) in replica.times().items() if stage in stages) / 60
    folders = {replica.seed: replica.folder for replica in replicas}
    return summary(game, keys, folders, config.limit if config.survival else None, minutes)


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ParamsError(f"`git {arguments[0]}` failed in {folder}: {done.stderr.strip()}")
    return done.stdout.strip()
