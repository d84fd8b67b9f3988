"""Both games with other pictures: walls, floors, colours, and what is drawn over the frame."""

import functools
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import gymnasium
import numpy as np
import pygame
from attention_peer import SIDE
from gymnasium.envs.box2d.car_racing import WINDOW_H, WINDOW_W
from PIL import Image, ImageDraw, ImageFont

from worldmodels.games import doom_engine
from worldmodels.games.base import BatchEnv, GameConfig
from worldmodels.games.carracing import GAME, ROWS, ROWS_KEPT, CarRacingConfig, car_controls
from worldmodels.games.carracing_drawing import QuickCarRacing
from worldmodels.games.doom import DoomConfig, DoomEnv
from worldmodels.games.gym_lanes import GymEnv
from worldmodels.games.gym_open import make_quietly

VARIATIONS = {"doom": ["plain", "wall", "floor", "text"], "carracing": ["plain", "colours", "bars", "blob"]}
SHIFT = 51  # by how much the variation ``colours`` changes red, green and blue of the road and of the grass, at most


@functools.cache
def overlay(variation: str, width: int, height: int) -> Image.Image | None:
    """Return what a variation draws over a picture of that size (RGBA); None if it draws nothing."""
    full = Image.new("RGBA", (640, 480) if variation == "text" else (SIDE, SIDE))
    draw = ImageDraw.Draw(full)
    if variation == "text":  # two words, about 100 x 30 pixels at (150, 30)
        for x, word, colour in ((150, "WORLD", (0, 255, 0, 255)), (207, "MODEL", (255, 0, 0, 255))):
            font = ImageFont.load_default(size=16)
            draw.text((x, 30), word, fill=colour, font=font, stroke_width=1, stroke_fill=colour)
    elif variation == "bars":
        for left in (0, SIDE - 8):
            draw.rectangle((left, 0, left + 7, SIDE), fill=(0, 0, 0, 255))
    elif variation == "blob":  # the car stays at (48, 72) of the picture, so this follows it
        draw.ellipse((28, 62, 37, 71), fill=(255, 0, 0, 255))
    else:
        return None
    return full if full.size == (width, height) else full.resize((width, height), Image.Resampling.BOX)


def varied(picture: np.ndarray, variation: str) -> np.ndarray:
    """Return a picture (height, width, 3) uint8 with what a variation draws over it."""
    over = overlay(variation, picture.shape[1], picture.shape[0])
    if over is None:
        return picture
    box = left, top, right, bottom = over.getbbox() or (0, 0, 1, 1)
    under = Image.fromarray(picture[top:bottom, left:right]).convert("RGBA")
    changed = picture.copy()
    changed[top:bottom, left:right] = Image.alpha_composite(under, over.crop(box)).convert("RGB")
    return changed


class VariedDoom(DoomEnv):
    """Take Cover as our agent sees it, varied. ``wad``: the scenario's file; None: the one that ships with ViZDoom."""

    def __init__(self, config: DoomConfig, variation: str, wad: Path | None) -> None:
        super().__init__(config, 1)
        self._variation, self._wad = variation, wad

    def _start_engine(self) -> Any:
        return start_doom(self._config.setup, self._wad)

    def _look(self, lane: int) -> None:
        picture = varied(self._engines[lane].get_state().screen_buffer, self._variation)
        self._pictures[lane] = picture[: len(self._pictures[lane])]  # the crop is at the bottom alone


class VariedCarRacing(QuickCarRacing):
    """CarRacing, varied. With a ``dashboard`` the lower rows show it as Gymnasium's do; else they are black."""

    def __init__(self, variation: str, dashboard: bool, **kwargs: Any) -> None:
        super().__init__(ROWS_KEPT, **kwargs)
        self.road_color: Any
        self.bg_color: Any
        self.grass_color: Any
        self._variation, self._dashboard = variation, dashboard
        self._texts: dict[str, Any] = {}  # what is written, by the text: drawing it takes long

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        if self._variation == "colours":
            assert seed is not None
            self._init_colors()
            road, grass = np.random.default_rng(seed).integers(-SHIFT, SHIFT + 1, (2, 3))
            self.road_color = self.road_color + road
            self.bg_color, self.grass_color = (np.clip(c + grass, 0, 255) for c in (self.bg_color, self.grass_color))
        return super().reset(seed=seed, options=options)

    def _render(self, mode: str) -> Any:
        picture = super()._render(mode)
        if mode != "state_pixels":
            return picture
        if self._dashboard:
            picture[ROWS_KEPT:] = self._lower_rows()
        return varied(picture, self._variation)

    def _lower_rows(self) -> np.ndarray:
        """Return the rows of the dashboard, drawn as Gymnasium draws them, up to a rounding (1 of 255)."""
        pygame.font.init()
        self.surf = pygame.Surface((WINDOW_W, WINDOW_H))
        self._render_indicators(WINDOW_W, WINDOW_H)
        told = f"{self.reward:04.0f}"
        if told not in self._texts:
            font = pygame.font.Font(pygame.font.get_default_font(), 42)
            self._texts[told] = font.render(told, True, (255, 255, 255), (0, 0, 0))
        place = self._texts[told].get_rect()
        place.center = (60, WINDOW_H - WINDOW_H * 2.5 / 40.0)
        self.surf.blit(self._texts[told], place)
        above = WINDOW_H * ROWS_KEPT // ROWS
        lower = pygame.transform.smoothscale(
            self.surf.subsurface((0, above, WINDOW_W, WINDOW_H - above)), (SIDE, ROWS - ROWS_KEPT)
        )
        return pygame.surfarray.array3d(lower).transpose(1, 0, 2)


def start_doom(setup: doom_engine.Setup, wad: Path | None, **switches: bool) -> Any:
    """Start an engine with another file of the scenario, and with switches such as ``render_hud``."""
    plain = doom_engine.configured

    def configured(told: doom_engine.Setup) -> Any:
        game = plain(told)
        if wad is not None:
            game.set_doom_scenario_path(str(wad))
        for name, value in switches.items():
            getattr(game, f"set_{name}")(value)
        return game

    with mock.patch.object(doom_engine, "configured", configured):
        return doom_engine.start_surely(setup)


def wad_of(folder: Path, variation: str) -> Path | None:
    """Return the scenario's file of a variation; None if it is the one that ships with ViZDoom."""
    return folder / f"take_cover_{variation}.wad" if variation in ("wall", "floor") else None


def open_car(config: GameConfig, variation: str, *, dashboard: bool) -> Any:
    """Make one game of CarRacing."""
    kwargs = {"variation": variation, "dashboard": dashboard}
    return make_quietly(replace(gymnasium.spec(GAME), entry_point=VariedCarRacing, kwargs=kwargs), config.limit, {})


def our_games(game: GameConfig, variation: str, folder: Path) -> BatchEnv:
    """Return the games that our agent plays."""
    if isinstance(game, DoomConfig):
        return VariedDoom(game, variation, wad_of(folder, variation))
    assert isinstance(game, CarRacingConfig)
    make = functools.partial(open_car, game, variation, dashboard=False)
    return GymEnv(game, make, car_controls, game.action_size, crop=game.cut)
