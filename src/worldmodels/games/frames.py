"""The one way from a game's picture to a 64x64 frame: crop, then an anti-aliased resize, then brightness."""

from typing import Annotated

import numpy as np
from pydantic import AfterValidator, Field

from worldmodels.shapes import FRAME_SHAPE, FRAME_SIZE

Share = Annotated[float, Field(ge=0, lt=1)]


def _leaves_a_picture(crop: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
    if crop[0] + crop[1] >= 1 or crop[2] + crop[3] >= 1:
        raise ValueError("top + bottom and left + right must each be less than 1, else no picture is left")
    return crop


Crop = Annotated[tuple[Share, Share, Share, Share], Field(strict=False), AfterValidator(_leaves_a_picture)]
"""Shares of a picture that are cut off at the top, bottom, left and right; [0, 0.125, 0, 0] drops the lowest eighth."""


def cropped(picture: np.ndarray, crop: Crop) -> np.ndarray:
    """Return what a crop leaves of a picture (height, width, ...), as a view."""
    height, width = picture.shape[:2]
    top, bottom, left, right = crop
    return picture[round(top * height) : round((1 - bottom) * height), round(left * width) : round((1 - right) * width)]


def resize(pictures: np.ndarray) -> np.ndarray:
    """Resize pictures to frames.

    The filter is the paper's: bilinear with anti-aliasing (``scipy.misc.imresize`` was PIL's), so that every pixel counts and
    a distant fireball does not fall between two samples. A picture's result does not depend on the others in the batch.

    Args:
        pictures: (B, height, width, 3) uint8.

    Returns:
        (B, 64, 64, 3) uint8, contiguous.
    """
    if not len(pictures):
        return np.zeros((0, *FRAME_SHAPE), np.uint8)
    import torch  # here and not above: reading params.yaml imports the configs of this package, and must not take 2 s

    # uint8 in channels-last order is what torch has a vectorised kernel for; a strided crop would fall off that path.
    batch = torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2)
    size = (FRAME_SIZE, FRAME_SIZE)
    frames = torch.nn.functional.interpolate(batch, size, mode="bilinear", antialias=True, align_corners=False)
    return frames.permute(0, 2, 3, 1).contiguous().numpy()


def brightened(frames: np.ndarray, gamma: float) -> np.ndarray:
    """Return uint8 frames with every brightness v in [0, 1] as v ** (1 / gamma).

    >>> brightened(np.array([0, 16, 64, 255], np.uint8), 2.0).tolist()
    [0, 64, 128, 255]
    """
    if gamma == 1:
        return frames
    return ((np.arange(256) / 255) ** (1 / gamma) * 255).round().astype(np.uint8)[frames]
