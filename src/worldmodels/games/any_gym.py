"""Any Gymnasium environment that shows a picture, named in params.yaml alone.

The picture is the observation if that is an image (uint8, height x width, with one or three channels), or the image
``image_key`` of an observation of several parts, else what ``render()`` draws. Actions are numbers in [-1, 1] whatever the
game's own space is (``gym_actions``). Wrappers can be put around the game.

Environments of plugin packages are named as Gymnasium does: ``module:Name-v0`` imports the module first.
"""

import json
import zlib
from contextlib import closing
from typing import Any, Literal, NamedTuple, Self

from pydantic import Field, model_validator

from worldmodels.games.base import BatchEnv, GameConfig, Pay
from worldmodels.games.choices import Choices
from worldmodels.games.frames import Crop
from worldmodels.games.gym_actions import ActionMap, action_map
from worldmodels.games.gym_lanes import GymEnv
from worldmodels.games.gym_open import NO_LIMIT, Look, WrapperConfig, backend_of, drawn, look_at, make_quietly, wrapped
from worldmodels.games.spread import SpreadEnv

USUAL_RATE = 30.0
"""Game steps a second of a game that does not tell its rate."""


class GymConfig(GameConfig):
    """A Gymnasium environment."""

    kind: Literal["gym"] = "gym"
    id: str = Field(min_length=1)  # its registered name, such as ``CarRacing-v3`` or ``ale_py:ALE/Pong-v5``
    kwargs: dict[str, Any] = Field(default_factory=dict)  # passed to ``gymnasium.make``
    wrappers: list[WrapperConfig] = Field(default=[])  # put around the game, the first one innermost
    image_key: str | None = None  # the picture in an observation of several parts (a ``Dict``)
    render: bool = False  # look at what ``render()`` draws, even if the observation is an image
    crop: Crop = (0, 0, 0, 0)  # what of the picture is cut off
    # ``events``: as the game gives it; ``survival``: 1 for every game step instead, so that a dream needs an M that foretells
    # ends and no reward; ``none``: 0
    reward: Pay = "events"
    reward_scale: float = Field(default=1.0, gt=0, le=1e9)  # factor of the game's rewards, and so of all scores

    @model_validator(mode="after")
    def _one_picture(self) -> Self:
        if self.render and self.image_key is not None:
            raise ValueError("render and image_key are two pictures: name one of them")
        return self

    @property
    def rules(self) -> str:
        """Name of the rules; what has no short name in it is told by a checksum."""
        name = self.id.lower().replace("/", "-").replace(":", "-")
        pay = "" if self.reward == "events" else f"-{self.reward}"
        told: list[Any] = [self.kwargs, self.crop]
        more = [[each.model_dump() for each in self.wrappers], self.image_key, self.render, self.reward_scale]
        told += more if more != [[], None, False, 1.0] else []
        usual = [{}, (0, 0, 0, 0)]
        mark = "" if told == usual else f"-{zlib.crc32(json.dumps(told, sort_keys=True, default=str).encode()):08x}"
        return f"{name}-limit{self.limit}{pay}{mark}"

    @property
    def action_size(self) -> int:
        return _told(self).actions.size

    @property
    def choices(self) -> Choices:
        return _told(self).actions.choices

    @property
    def cut(self) -> Crop:
        return self.crop

    @property
    def pay(self) -> Pay:
        return self.reward

    @property
    def game_steps_a_second(self) -> float:
        return _told(self).rate

    def make(self, *, scoring: bool = False, threads: int = 1) -> BatchEnv:
        told = _told(self)
        if threads > 1:
            return SpreadEnv(self, threads, told.actions.size, told.backend)
        return GymEnv(
            self,
            lambda: open_game(self, drawing=told.look is drawn),
            told.actions.controls,
            told.actions.size,
            crop=self.crop,
            look=told.look,
            backend=told.backend,
            reward_scale=self.reward_scale,
        )


class _Told(NamedTuple):
    """What a game says of itself."""

    actions: ActionMap
    look: Look
    rate: float  # game steps a second
    backend: str


_known: dict[str, _Told] = {}
"""What games have said in this process: making one may take a second, and much is asked of it."""


def _told(config: GymConfig) -> _Told:
    """Return what a game says of itself; it is made once for all questions.

    Raises:
        ParamsError: it cannot be made, has actions that cannot be mapped, or shows no picture.
    """
    key = repr((config.id, config.kwargs, config.wrappers, config.image_key, config.render))
    if key not in _known:
        with closing(open_game(config, drawing=False)) as game:
            look = look_at(game, config.image_key, config.render, config.id)
            if look is not None:
                _known[key] = _of(game, look, config.id)
        if look is None:
            with closing(open_game(config, drawing=True)) as game:
                _known[key] = _of(game, drawn, config.id)
    return _known[key]


def _of(game: Any, look: Look, name: str) -> _Told:
    rate = game.metadata.get("render_fps")
    known = isinstance(rate, int | float) and rate > 0
    return _Told(action_map(game.action_space, name), look, float(rate) if known else USUAL_RATE, backend_of(game.spec))


def open_game(config: GymConfig, *, drawing: bool) -> Any:
    """Make one ``gymnasium.Env`` with its wrappers; ``drawing``: it draws what ``render()`` gives."""
    kwargs = {**config.kwargs, "render_mode": "rgb_array"} if drawing else config.kwargs
    return wrapped(make_quietly(config.id, NO_LIMIT, kwargs), config.wrappers)
