"""Making one Gymnasium game: quietly, with the wrappers that params.yaml names, and with a picture to look at."""

import difflib
import importlib
import inspect
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from importlib.metadata import packages_distributions, version
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from worldmodels.errors import EnvironmentFault, ParamsError
from worldmodels.params import Config

if TYPE_CHECKING:
    from gymnasium.envs.registration import EnvSpec

Look = Callable[[Any, Any], np.ndarray]
"""Returns the picture of a game and its observation: (height, width) or (height, width, 1 or 3), uint8."""
OWN = "gymnasium.wrappers"
"""The module of wrappers that are named without one."""
NO_LIMIT = -1
"""What Gymnasium takes for a game that it shall not truncate."""


class WrapperConfig(Config):
    """A wrapper to put around a game."""

    id: str = Field(min_length=1)  # of Gymnasium's own its name, such as ``MaxAndSkipObservation``; of others ``module:Name``
    kwargs: dict[str, Any] = Field(default_factory=dict)  # passed to it, behind the game


def make_quietly(name: "str | EnvSpec", steps: int, kwargs: dict[str, Any]) -> Any:
    """Call ``gymnasium.make`` with a name or a spec, without a window, sound, greeting or warnings.

    Args:
        name: of the game, or its spec.
        steps: after which Gymnasium truncates an episode; ``NO_LIMIT``: it does not.
        kwargs: for the game.

    Raises:
        ParamsError: Gymnasium does not know the name, lacks a package for it, or the game refuses the arguments.
    """
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    os.environ.setdefault("SDL_AUDIODRIVER", "dummy")
    if not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        os.environ.setdefault("SDL_VIDEODRIVER", "offscreen")  # with `dummy`, some games draw nothing
    import gymnasium

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _silence_atari(name)
            game = gymnasium.make(name, max_episode_steps=steps, disable_env_checker=True, **kwargs)
    except Exception as error:  # whatever a game throws at arguments that it does not like
        hint = ""
        if isinstance(error, gymnasium.error.UnregisteredEnv) and isinstance(name, str) and ":" not in name:
            module = "ale_py" if name.startswith("ALE/") else "MODULE"
            hint = f" If a package other than Gymnasium has it, name that one's module too: `{module}:{name}`."
        if isinstance(error, ModuleNotFoundError):
            hint = " Install the package that has it, or correct the name."
        raise ParamsError(f"the Gymnasium environment `{name}` cannot be made: {_said(error)}{hint}") from error
    if mujoco := sys.modules.get("mujoco"):  # else it writes its warnings into MUJOCO_LOG.TXT in the working directory
        mujoco.set_mju_user_warning(lambda text: print(f"warning: MuJoCo: {text}", file=sys.stderr))
    return game


def _silence_atari(name: "str | EnvSpec") -> None:
    """Keep the Arcade Learning Environment from greeting at every game, if that is where a game is from."""
    if isinstance(name, str) and name.startswith("ale_py:"):
        import ale_py

        ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)


def wrapped(game: Any, wrappers: Sequence[WrapperConfig]) -> Any:
    """Return the game with wrappers around it, the first one innermost.

    Raises:
        ParamsError: there is no such wrapper, it refuses the game or the arguments, or it remembers earlier episodes.
    """
    import gymnasium

    for number, config in enumerate(wrappers):
        where, wrap = f"`wrappers`, number {number + 1}", _wrapper(config.id)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                game = wrap(game, **config.kwargs)
        except Exception as error:
            raise ParamsError(f"{where}: `{config.id}` cannot be put around the game: {_said(error)}") from error
        if isinstance(game, gymnasium.wrappers.NormalizeObservation | gymnasium.wrappers.NormalizeReward):
            raise ParamsError(
                f"{where}: `{config.id}` remembers earlier episodes, and an episode may depend on nothing but its seed and its "
                "actions. `reward_scale` and `ClipReward` depend on nothing else."
            )
    return game


def _wrapper(name: str) -> type[Any]:
    """Return the wrapper of a name, ``Name`` or ``module:Name``; ParamsError if there is none.

    Nothing but a class of wrappers is called: the card of an agent that somebody sent names them too.
    """
    import gymnasium

    place, _, short = name.rpartition(":")
    try:
        module = importlib.import_module(place or OWN)
    except ImportError as error:
        raise ParamsError(f"the wrapper `{name}` cannot be imported: {error}. Install the package that has it.") from error
    known = {
        key: value for key, value in vars(module).items() if inspect.isclass(value) and issubclass(value, gymnasium.Wrapper)
    }
    if short in known:
        return known[short]
    near = difflib.get_close_matches(short, known, n=1)
    hint = f" Did you mean `{near[0]}`?" if near else ""
    other = "" if place else " Name one of another package with its module: `minigrid.wrappers:ImgObsWrapper`."
    raise ParamsError(f"there is no wrapper `{short}` in {place or OWN}.{hint}{other}")


def look_at(game: Any, image_key: str | None, render: bool, name: str) -> Look | None:
    """Return how to look at a game that was made without drawing; None if it must be made again, to draw itself.

    Args:
        game: with its wrappers.
        image_key: the image in an observation of several parts.
        render: what the game draws is wanted, even if its observation is an image.
        name: what messages call it.

    Raises:
        ParamsError: there is no picture, or ``image_key`` names none.
    """
    space = game.observation_space
    parts = dict(getattr(space, "spaces", {})) if hasattr(space, "keys") else {}
    images = [key for key, part in parts.items() if is_image(part)]
    if image_key is not None:
        if image_key not in images:
            has = f"images: {', '.join(images)}" if images else f"no image ({space})"
            raise ParamsError(f"`image_key`: the observation of `{name}` has no image {image_key!r}. It has {has}.")
        return lambda _, observation: observation[image_key]
    if is_image(space) and not render:
        return observed
    modes = game.metadata.get("render_modes") or []
    if "rgb_array" in modes:
        return None
    hint = f" Name an image of its observation: `image_key: {images[0]}`." if images else ""
    raise ParamsError(
        f"`{name}` shows no picture: its observation is {space}, which is no image (height x width, uint8, with one or three "
        f"channels), and it does not draw itself (render modes: {', '.join(map(str, modes)) or 'none'}).{hint}"
    )


def observed(_: Any, observation: Any) -> np.ndarray:
    """Look at an observation that is the picture."""
    picture: np.ndarray = observation
    return picture


def drawn(game: Any, _: Any) -> np.ndarray:
    """Look at what a game draws.

    Raises:
        EnvironmentFault: it draws no picture.
    """
    picture = game.render()
    if not (isinstance(picture, np.ndarray) and is_image(picture)):
        shape = f" of the shape {picture.shape}" if isinstance(picture, np.ndarray) else ""
        raise EnvironmentFault(f"render() gives no picture but {type(picture).__name__}{shape}")
    return picture


def is_image(space: Any) -> bool:
    """Return whether an observation space holds pictures, or an array is one."""
    shape = space.shape or ()
    return bool(space.dtype == np.uint8 and len(shape) in (2, 3) and shape[2:] in ((), (1,), (3,)))


def backend_of(spec: Any) -> str:
    """Return what simulates the game of a Gymnasium spec: Gymnasium, and the package that the game itself is from."""
    own = f"gymnasium-{version('gymnasium')}"
    start = spec.entry_point if isinstance(spec.entry_point, str) else spec.entry_point.__module__
    package = start.partition(":")[0].partition(".")[0]
    found = [] if package in ("gymnasium", __name__.partition(".")[0]) else packages_distributions().get(package, [])
    return "+".join([own, *(f"{name}-{version(name)}" for name in found[:1])])


def _said(error: Exception) -> str:
    text = str(error).strip().rstrip(".")
    return f"{text or type(error).__name__}."
