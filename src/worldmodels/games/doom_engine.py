"""One engine of ViZDoom: a process of its own, headless and silent, which ends with the process that started it."""

import glob
import hashlib
import os
import queue
import sys
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import psutil

from worldmodels.errors import EnvironmentFault, ParamsError

if TYPE_CHECKING:
    import vizdoom


class Setup(NamedTuple):
    """What an engine is started with."""

    scenario: str = "take_cover"  # the name of one that ships with ViZDoom, or the path of a .cfg
    skill: int | None = 4  # difficulty; None: as the scenario says
    resolution: str = "160x120"
    buttons: tuple[str, ...] = ()  # names of ViZDoom's; (): as the scenario says
    living_reward: float | None = None  # for every tic; None: as the scenario says
    digest: str = ""  # of the files of a scenario of one's own, as ``digest_of`` tells it; "" of one that ships with ViZDoom


START_SECONDS = 30.0
"""Time that an engine may take to start; it takes 0.1 to 0.3 s on an idle machine."""
START_TRIES = 3


def start_surely(setup: Setup) -> "vizdoom.DoomGame":
    """Start one engine; one that does not answer within ``START_SECONDS`` is given up, and another is started.

    An engine that cannot be forked, or dies while it starts, leaves ViZDoom waiting for ever, and nothing can reach it. So
    the wait is in a daemon thread, which can be left behind: it holds no lock and ends with this process.

    Raises:
        EnvironmentFault: the engine does not start, or ``START_TRIES`` of them did not answer.
    """

    def start(answer: "queue.SimpleQueue[vizdoom.DoomGame | Exception]") -> None:
        try:
            answer.put(start_engine(setup))
        except Exception as error:
            answer.put(error)

    for attempt in range(1, START_TRIES + 1):
        answer: queue.SimpleQueue[vizdoom.DoomGame | Exception] = queue.SimpleQueue()
        threading.Thread(target=start, args=(answer,), daemon=True, name=f"doom start {attempt}").start()
        try:
            game = answer.get(timeout=START_SECONDS)
        except queue.Empty:
            print(f"warning: a ViZDoom engine did not start within {START_SECONDS:g} s; trying another", file=sys.stderr)
            continue
        if isinstance(game, Exception):
            raise game
        return game
    raise EnvironmentFault(
        f"{START_TRIES} ViZDoom engines did not start within {START_SECONDS:g} s each. Run `wm doctor`; a game needs 10 MB of "
        "free space in /dev/shm."
    )


def start_engine(setup: Setup) -> "vizdoom.DoomGame":
    """Start one engine, headless and silent.

    On Linux it leaves nothing behind, even if this process is killed: no process, no shared memory, no file of its own.

    Raises:
        EnvironmentFault: it does not start.
        ParamsError: the scenario cannot be read.
    """
    import vizdoom

    game = configured(setup)
    game.set_episode_timeout(0)  # the limit is counted here, so that an end of the game's own is told from a time-out
    game.set_mode(vizdoom.Mode.PLAYER)
    game.set_screen_format(vizdoom.ScreenFormat.RGB24)
    game.set_screen_resolution(getattr(vizdoom.ScreenResolution, f"RES_{setup.resolution.upper()}"))
    game.set_available_game_variables([])
    game.set_window_visible(False)
    game.set_sound_enabled(False)
    game.set_doom_config_path(os.devnull)  # else each engine writes _vizdoom.ini into the working directory
    try:
        if sys.platform == "linux":
            game.set_vizdoom_path(str(_launcher()))
        game.init()
    except Exception as error:
        raise EnvironmentFault(
            f"the ViZDoom engine does not start: {error} Run `wm doctor`; a game needs 10 MB of free space in /dev/shm."
        ) from error
    # Both processes have the shared memory mapped by now. Unlinked, it goes when they do, even if they are killed.
    for path in glob.glob(f"/dev/shm/ViZDoom*{game.get_instance_id()}"):
        os.unlink(path)
    return game


def configured(setup: Setup) -> "vizdoom.DoomGame":
    """Return a game that has read its scenario, without an engine.

    Raises:
        ParamsError: there is no such scenario or button, its file is none, or its files are not those of the digest.
    """
    import vizdoom

    path = scenario_file(setup.scenario)
    game = vizdoom.DoomGame()
    try:
        game.load_config(str(path))
    except Exception as error:
        raise ParamsError(f"{path} is no configuration of ViZDoom: {error}") from None
    _check_digest(setup, digest_of(path, game) if setup.scenario.endswith(".cfg") else "")
    switches = {name: button for name, button in vizdoom.Button.__members__.items() if not name.endswith("_DELTA")}
    own = [button.name for button in game.get_available_buttons() if button.name in switches]
    if unknown := [name for name in setup.buttons if name not in switches]:
        raise ParamsError(
            f"`buttons`: {unknown[0]!r} is no button of ViZDoom that is pressed or not. {path.name} has {', '.join(own)}."
        )
    game.set_available_buttons([switches[name] for name in setup.buttons or own])
    if setup.skill is not None:
        game.set_doom_skill(setup.skill)
    if setup.living_reward is not None:
        game.set_living_reward(setup.living_reward)
    return game


def scenario_file(scenario: str) -> Path:
    """Return the .cfg of a scenario; ParamsError if there is none."""
    import vizdoom

    if scenario.endswith(".cfg"):
        path, hint = Path(scenario), "Name a file, or a scenario that ships with ViZDoom."
    else:
        folder = Path(vizdoom.scenarios_path)
        path, hint = folder / f"{scenario}.cfg", f"ViZDoom has {', '.join(sorted(each.stem for each in folder.glob('*.cfg')))}."
    if not path.is_file():
        raise ParamsError(f"there is no ViZDoom scenario {scenario!r}. {hint}")
    return path


def _check_digest(setup: Setup, found: str) -> None:
    """Refuse files of which params say nothing, or something else. ``found``: their digest; "" if the scenario ships."""
    if setup.digest and not found:
        raise ParamsError(f"`digest` is for a .cfg of your own: remove it, as {setup.scenario} ships with ViZDoom.")
    if setup.digest != found:
        was = f"is {setup.digest!r}, of other files" if setup.digest else "is missing"
        raise ParamsError(
            f"`digest` of the scenario {setup.scenario} {was}. Write `digest: {found!r}` beside `scenario`: then `dvc repro` "
            "runs again what depends on its files."
        )


def digest_of(path: Path, game: "vizdoom.DoomGame") -> str:
    """Return a checksum, 16 hexadecimal digits, of a scenario's .cfg and of the .wad files that it names.

    DVC cannot name the files of one game among its dependencies, so the digest in params.yaml stands for them.

    Raises:
        ParamsError: a file is missing.
    """
    found = hashlib.sha256()
    for file in (path, *(Path(named) for named in (game.get_doom_scenario_path(), game.get_doom_game_path()) if named)):
        try:
            found.update(hashlib.sha256(file.read_bytes()).digest())
        except OSError as error:
            raise ParamsError(f"{file}, which {path} needs, cannot be read: {error.strerror}.") from None
    return found.hexdigest()[:16]


def _launcher() -> Path:
    """Return the path of the script that starts an engine, with what it needs to know in the environment.

    All engines of a user share one folder to start in, which stays: one for each would be left behind by every process
    that is killed while its engines start.

    Raises:
        OSError: an engine could not be executed there, for which ViZDoom crashes Python.
    """
    import vizdoom

    engine, script = Path(vizdoom.__file__).with_name("vizdoom"), Path(__file__).with_name("vizdoom.sh")
    for path in (engine, script):
        if not os.access(path, os.X_OK):
            raise FileNotFoundError(f"{path} is missing or not executable: install its package again.")
    folder = Path(tempfile.gettempdir()) / f"worldmodels-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.is_symlink() or folder.stat().st_uid != os.getuid():
        raise PermissionError(f"{folder} is not yours: remove it, or set TMPDIR to another folder.")
    os.environ |= {"WM_VIZDOOM": str(engine), "WM_VIZDOOM_FOLDER": str(folder)}
    return script


def position(game: "vizdoom.DoomGame") -> tuple[float, float]:
    """Return where the player is on the map, x and y."""
    import vizdoom

    x, y = (game.get_game_variable(each) for each in (vizdoom.GameVariable.POSITION_X, vizdoom.GameVariable.POSITION_Y))
    return float(x), float(y)


def stands_in(game: "vizdoom.DoomGame", place: tuple[float, float, float, float]) -> bool:
    """Return whether the player is there: least and most x, least and most y on the map."""
    x, y = position(game)
    return bool(place[0] <= x <= place[1] and place[2] <= y <= place[3])


def engine_faults() -> tuple[type[Exception], ...]:
    """Return what ViZDoom raises if an engine is gone."""
    import vizdoom

    return (
        vizdoom.ViZDoomUnexpectedExitException,
        vizdoom.ViZDoomIsNotRunningException,
        vizdoom.ViZDoomErrorException,
        vizdoom.MessageQueueException,
        vizdoom.SharedMemoryException,
    )


def kill(game: "vizdoom.DoomGame") -> None:
    """Kill the process of an engine, a child of this one."""
    instance = game.get_instance_id()
    for engine in psutil.Process().children():
        with suppress(psutil.Error):
            if instance in engine.cmdline():
                engine.kill()
