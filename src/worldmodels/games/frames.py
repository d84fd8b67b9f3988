"""The one way from a game's picture to a 64x64 frame: crop, then an anti-aliased resize."""

import numpy as np

from worldmodels.shapes import FRAME_SHAPE, FRAME_SIZE


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
