"""Pictures made of frames: a reconstruction grid for V, a filmstrip of a dream beside reality.

Every function returns an image, (H, W, 3) uint8. ``write_png`` gives the same bytes for the same image: no time, no
software name.
"""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from worldmodels.report.style import FAINT_INK, INK, PAPER_WHITE, WORLD_COLOURS, rgb

SCALE = 2
GAP = 2
MARGIN = 12
LABEL_SIZE = 15
NOTE_SIZE = 13


def reconstruction_grid(frames: np.ndarray, reconstructions: np.ndarray, columns: int = 8) -> np.ndarray:
    """Draw frames above what V makes of them, in as many pairs of rows as are needed.

    Args:
        frames: (N, 64, 64, 3) uint8, what the game showed.
        reconstructions: (N, 64, 64, 3) uint8, what V decoded from its own latent of each frame.
        columns: frames in a row.

    Returns:
        (H, W, 3) uint8, every frame at twice its size.

    Raises:
        ValueError: where the two arrays are not alike, or are empty.
    """
    if frames.shape != reconstructions.shape or frames.ndim != 4 or not len(frames):
        shapes = f"frames {frames.shape} and reconstructions {reconstructions.shape}"
        raise ValueError(f"{shapes} must be alike: (N, H, W, 3)")
    columns = min(columns, len(frames))
    height, width = (side * SCALE for side in frames.shape[1:3])
    pairs = -(-len(frames) // columns)
    pair_height = 2 * height + GAP
    left = MARGIN + _text_width(("frame", "V's view")) + MARGIN
    sheet = _sheet(
        left + columns * width + (columns - 1) * GAP + MARGIN,
        2 * MARGIN + pairs * pair_height + (pairs - 1) * MARGIN,
    )
    draw = ImageDraw.Draw(sheet)
    for pair in range(pairs):
        top = MARGIN + pair * (pair_height + MARGIN)
        for row, (label, world, images) in enumerate(
            (("frame", "real", frames), ("V's view", "dream", reconstructions)),
        ):
            y = top + row * (height + GAP)
            _row_label(draw, label, WORLD_COLOURS[world], right=left - MARGIN, y=y, height=height)
            for column, image in enumerate(images[pair * columns : (pair + 1) * columns]):
                sheet.paste(_enlarge(image), (left + column * (width + GAP), y))
    return np.asarray(sheet)


def filmstrip(
    rows: Mapping[str, np.ndarray], every: int = 1, note: str = "", heads: Sequence[str] = (), corner: str = "step"
) -> np.ndarray:
    """Draw episodes beside each other, one labelled row each, with step numbers above.

    Args:
        rows: label -> frames (T, 64, 64, 3) uint8. T may differ: a row that ends early says so. A label that holds the
            word ``real``, ``dream`` or ``random`` gets that world's colour.
        every: steps between two pictures.
        note: one line below the strip (temperature, seed).
        heads: what stands above the columns instead of step numbers.
        corner: what the heads are.

    Returns:
        (H, W, 3) uint8, every frame at twice its size.

    Raises:
        ValueError: where there is no frame to show, or ``every`` is not positive.
    """
    if every < 1:
        raise ValueError(f"every = {every}: must be at least 1")
    if not rows or not all(len(frames) for frames in rows.values()):
        raise ValueError("a filmstrip needs at least one row, and at least one frame in every row")
    shown = {label: frames[::every] for label, frames in rows.items()}
    columns = max(map(len, shown.values()))
    height, width = (side * SCALE for side in next(iter(shown.values())).shape[1:3])
    left = MARGIN + _text_width((*rows, corner)) + MARGIN
    top = MARGIN + NOTE_SIZE + 8
    below = NOTE_SIZE + 10 if note else 0
    sheet = _sheet(
        left + columns * width + (columns - 1) * GAP + MARGIN,
        top + len(rows) * height + (len(rows) - 1) * 3 * GAP + MARGIN + below,
    )
    draw = ImageDraw.Draw(sheet)
    small = _font(NOTE_SIZE)
    draw.text((left - MARGIN, top - 6), corner, fill=FAINT_INK, font=small, anchor="rs")
    for column in range(columns):
        x = left + column * (width + GAP)
        draw.text((x + 1, top - 6), heads[column] if heads else str(column * every), fill=FAINT_INK, font=small, anchor="ls")
    for row, (label, frames) in enumerate(shown.items()):
        y = top + row * (height + 3 * GAP)
        _row_label(draw, label, _world_colour(label), right=left - MARGIN, y=y, height=height)
        for column, image in enumerate(frames):
            sheet.paste(_enlarge(image), (left + column * (width + GAP), y))
        if len(frames) < columns:
            x = left + len(frames) * (width + GAP)
            text = f"ended, step {len(rows[label]) - 1}"
            draw.text((x + 8, y + height // 2), text, fill=FAINT_INK, font=small, anchor="lm")
    if note:
        draw.text((left, sheet.height - MARGIN), note, fill=FAINT_INK, font=small, anchor="ls")
    return np.asarray(sheet)


def png_bytes(image: np.ndarray) -> bytes:
    """Return an (H, W, 3) uint8 image as a PNG file; the same image gives the same bytes."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG")
    return buffer.getvalue()


def write_png(path: Path, image: np.ndarray) -> bytes:
    """Write an (H, W, 3) uint8 image, folders too, and return the file's bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content := png_bytes(image))
    return content


def _sheet(width: int, height: int) -> Image.Image:
    return Image.new("RGB", (width, height), PAPER_WHITE)


def _font(size: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    return ImageFont.load_default(size)  # Pillow's own font: the same on every machine


def _text_width(labels: Mapping[str, object] | tuple[str, ...]) -> int:
    return max(int(np.ceil(_font(LABEL_SIZE).getlength(label))) for label in labels) + 12


def _enlarge(image: np.ndarray) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(image.repeat(SCALE, axis=0).repeat(SCALE, axis=1)))


def _row_label(draw: ImageDraw.ImageDraw, label: str, colour: str, *, right: int, y: int, height: int) -> None:
    """Write a label left of ``right``, and a bar in its colour along the row."""
    draw.rectangle((right + 3, y, right + 6, y + height - 1), fill=rgb(colour))
    draw.text((right - 4, y + height // 2), label, fill=INK, font=_font(LABEL_SIZE), anchor="rm")


def _world_colour(label: str) -> str:
    lowered = label.lower()
    for world, colour in WORLD_COLOURS.items():
        if world in lowered:
            return colour
    return FAINT_INK
