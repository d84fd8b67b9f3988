"""Gymnasium's CarRacing, drawn in less than half the time: the same game, the same pixels.

Gymnasium turns every tile of the track and every patch of grass into the car's view, in Python, at every step, and then
draws the few that are near; and it writes a dashboard that a frame has cut off. Here numpy tells which are near.
What is drawn, and how, is Gymnasium's.
"""

from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np
import pygame
from gymnasium.envs.box2d import car_racing as game

SLACK = 2.0
"""Pixels by which more is drawn than can be seen, because roundings differ."""
FIELD = [(x * game.PLAYFIELD, y * game.PLAYFIELD) for x, y in ((1, 1), (1, -1), (-1, -1), (-1, 1))]
PATCHES = [(x, y) for x in range(-20, 20, 2) for y in range(-20, 20, 2)]
GRASS = game.GRASS_DIM * np.array([[(x + right, y + up) for x, y in PATCHES] for right, up in ((1, 0), (0, 0), (0, 1), (1, 1))])
"""Corners of the patches of darker grass, (4, N, 2)."""


class QuickCarRacing(game.CarRacing):
    """CarRacing whose pictures have no dashboard: the rows below the first ``rows_kept`` are black. ``render()`` shows all.

    With 0 rows nothing is drawn, which takes a tenth of the time: for policies that do not look.
    """

    road_poly: list[tuple[list[tuple[float, float]], Any]]

    def __init__(self, rows_kept: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._rows = rows_kept
        self._height = game.WINDOW_H * rows_kept // game.STATE_H  # of the window above the dashboard
        # Two corners of that part, upside down as it is drawn.
        self._seen = np.array([(0, game.WINDOW_H - self._height), (game.WINDOW_W, game.WINDOW_H)])

    def _create_track(self) -> Any:
        made = super()._create_track()
        if made:
            self._road = np.array([corners for corners, _ in self.road_poly], np.float64).swapaxes(0, 1).copy()
        return made

    def _render(self, mode: str) -> Any:
        if mode != "state_pixels":
            return super()._render(mode)
        assert self.car is not None
        if not self._rows:
            return np.zeros((game.STATE_H, game.STATE_W, 3), np.uint8)
        self.surf = pygame.Surface((game.WINDOW_W, game.WINDOW_H))
        angle = -self.car.hull.angle
        zoom = 0.1 * game.SCALE * max(1 - self.t, 0) + game.ZOOM * game.SCALE * min(self.t, 1)
        scroll = pygame.math.Vector2([-place * zoom for place in self.car.hull.position]).rotate_rad(angle)
        origin = (game.WINDOW_W / 2 + scroll[0], game.WINDOW_H / 4 + scroll[1])
        self._render_road(zoom, origin, angle)
        self.car.draw(self.surf, zoom, origin, angle, draw_particles=False)
        above = self.surf.subsurface((0, game.WINDOW_H - self._height, game.WINDOW_W, self._height))
        scaled = pygame.transform.smoothscale(pygame.transform.flip(above, False, True), (game.STATE_W, self._rows))
        picture = np.zeros((game.STATE_H, game.STATE_W, 3), np.uint8)
        picture[: self._rows] = pygame.surfarray.pixels3d(scaled).transpose(1, 0, 2)
        return picture

    def _render_road(self, zoom: float, translation: tuple[float, float], angle: float) -> None:
        turned = zoom * np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        self._draw_colored_polygon(self.surf, FIELD, self.bg_color, zoom, translation, angle, clip=False)
        for index in near(GRASS @ turned + translation, self._seen):
            self._draw_colored_polygon(self.surf, GRASS[:, index].tolist(), self.grass_color, zoom, translation, angle)
        for index in near(self._road @ turned + translation, self._seen):
            corners, color = self.road_poly[index]
            self._draw_colored_polygon(self.surf, corners, [int(part) for part in color], zoom, translation, angle)


def near(corners: np.ndarray, seen: np.ndarray) -> list[int]:
    """Return which polygons, (4, N, 2) in pixels of the window, may show: their bounding boxes reach into what is seen."""
    inside = (corners.max(0) >= seen[0] - SLACK) & (corners.min(0) <= seen[1] + SLACK)
    found: list[int] = np.flatnonzero(inside[:, 0] & inside[:, 1]).tolist()
    return found


def quick_spec(name: str, rows_kept: int) -> Any:
    """Return what ``gymnasium.make`` takes for the CarRacing of that name, drawn in less time."""
    return replace(gymnasium.spec(name), entry_point=QuickCarRacing, kwargs={"rows_kept": rows_kept})
