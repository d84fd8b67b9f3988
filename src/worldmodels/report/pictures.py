"""Pictures made of frames: episodes beside each other, step by step. The same image gives the same PNG file."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from worldmodels.report.style import FAINT_INK, INK, PAPER_WHITE, WORLD_COLOURS, rgb
from worldmodels.storage.files import write_bytes

SCALE = 2
GAP = 2
MARGIN = 12
LABEL_SIZE = 15
NOTE_SIZE = 13


def filmstrip(
    rows: Mapping[str, np.ndarray], every: int = 1, note: str = "", heads: Sequence[str] = (), corner: str = "step"
) -> np.ndarray:
    """Draw episodes beside each other, one labelled row each, with step numbers above.

    Args:
        rows: label -> frames (T, 64, 64, 3) uint8, T at least 1. T may differ: a row that ends early says so. A label that
            holds the word ``real``, ``dream`` or ``random`` gets that world's colour.
        every: steps between two pictures.
        note: one line below the strip (temperature, seed).
        heads: what stands above the columns instead of step numbers.
        corner: what the heads are.

    Returns:
        (H, W, 3) uint8, every frame at twice its size.
    """
    label_font, small = ImageFont.load_default(LABEL_SIZE), ImageFont.load_default(NOTE_SIZE)  # Pillow's: the same everywhere
    shown = {label: frames[::every] for label, frames in rows.items()}
    columns = max(map(len, shown.values()))
    height, width = (side * SCALE for side in next(iter(shown.values())).shape[1:3])
    left = 2 * MARGIN + 12 + max(int(np.ceil(label_font.getlength(label))) for label in (*rows, corner))
    top = MARGIN + NOTE_SIZE + 8
    across = left + columns * (width + GAP) - GAP + MARGIN
    down = top + len(rows) * (height + 3 * GAP) - 3 * GAP + MARGIN + (NOTE_SIZE + 10 if note else 0)
    sheet = Image.new("RGB", (across, down), PAPER_WHITE)
    draw = ImageDraw.Draw(sheet)
    draw.text((left - MARGIN, top - 6), corner, fill=FAINT_INK, font=small, anchor="rs")
    for column in range(columns):
        head = heads[column] if heads else str(column * every)
        draw.text((left + column * (width + GAP) + 1, top - 6), head, fill=FAINT_INK, font=small, anchor="ls")
    for row, (label, frames) in enumerate(shown.items()):
        y = top + row * (height + 3 * GAP)
        draw.rectangle((left - 9, y, left - 6, y + height - 1), fill=rgb(world_colour(label, FAINT_INK)))
        draw.text((left - MARGIN - 4, y + height // 2), label, fill=INK, font=label_font, anchor="rm")
        for column, image in enumerate(frames):
            sheet.paste(Image.fromarray(enlarge(image, SCALE)), (left + column * (width + GAP), y))
        if len(frames) < columns:
            x, text = left + len(frames) * (width + GAP), f"ended, step {len(rows[label]) - 1}"
            draw.text((x + 8, y + height // 2), text, fill=FAINT_INK, font=small, anchor="lm")
    draw.text((left, down - MARGIN), note, fill=FAINT_INK, font=small, anchor="ls")
    return np.asarray(sheet)


def enlarge(image: np.ndarray, scale: int) -> np.ndarray:
    """Return an image (H, W, 3) so many times its size, pixels kept sharp."""
    return np.ascontiguousarray(image.repeat(scale, axis=0).repeat(scale, axis=1))


def world_colour(label: str, other: str) -> str:
    """Return the colour of the world that a label names, or another."""
    return next((colour for world, colour in WORLD_COLOURS.items() if world in label.lower()), other)


def png_bytes(image: np.ndarray) -> bytes:
    """Return an (H, W, 3) uint8 image as a PNG file without a time and a software name."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG")
    return buffer.getvalue()


def write_png(path: Path, image: np.ndarray) -> bytes:
    """Write an (H, W, 3) uint8 image, folders too, and return the file's bytes."""
    write_bytes(path, content := png_bytes(image))
    return content
