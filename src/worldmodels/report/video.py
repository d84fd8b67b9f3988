"""Frames to a video file: H.264 in MP4, or GIF."""

from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import chain
from pathlib import Path

import numpy as np
from PIL import Image

from worldmodels.errors import ParamsError

SCALE = 4
SUFFIXES = (".mp4", ".gif")


def check_suffix(path: Path) -> None:
    """Refuse a video file name that `write_video` cannot write, before anything is played.

    Raises:
        ParamsError: where the suffix is neither .mp4 nor .gif.
    """
    if path.suffix.lower() not in SUFFIXES:
        suffix = path.suffix or "(none)"
        raise ParamsError(f"{path}: cannot write a video with the suffix {suffix!r}. Use .mp4 or .gif.")


def write_video(path: Path, frames: Iterable[np.ndarray], fps: float = 35.0) -> int:
    """Write frames as a video at four times their size, pixels kept sharp. The same frames give the same bytes.

    Args:
        path: ends in .mp4 (H.264) or .gif; folders are made.
        frames: (H, W, 3) uint8 each, all of one size; read one at a time.
        fps: frames a second; a GIF rounds each frame's time to hundredths of a second.

    Returns:
        How many frames were written.

    Raises:
        ParamsError: for another suffix, or a rate that is not above 0.
        ValueError: where there is no frame.
    """
    check_suffix(path)
    if not fps > 0:
        raise ParamsError(f"fps = {fps}: must be above 0")
    frames = iter(frames)
    first = next(frames, None)
    if first is None:
        raise ValueError(f"{path}: there is no frame to write")
    path.parent.mkdir(parents=True, exist_ok=True)
    enlarged = (_enlarge(frame) for frame in chain([first], frames))
    return _write_mp4(path, enlarged, fps) if path.suffix.lower() == ".mp4" else _write_gif(path, enlarged, fps)


def _enlarge(frame: np.ndarray) -> np.ndarray:
    # 4 times any size is even, as H.264 needs.
    return np.ascontiguousarray(frame.repeat(SCALE, axis=0).repeat(SCALE, axis=1))


def _write_mp4(path: Path, frames: Iterator[np.ndarray], fps: float) -> int:
    import av

    count = 0
    with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart", "fflags": "+bitexact"}) as container:
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1000))
        stream.pix_fmt = "yuv420p"  # the one that every browser and player shows
        stream.thread_count = 1  # x264's output depends on its number of threads
        stream.options = {"crf": "18", "preset": "medium", "flags": "+bitexact"}
        for count, frame in enumerate(frames, start=1):
            if count == 1:
                stream.height, stream.width = frame.shape[:2]
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    return count


def _write_gif(path: Path, frames: Iterator[np.ndarray], fps: float) -> int:
    images = [Image.fromarray(frame).quantize(colors=128, dither=Image.Dither.NONE) for frame in frames]
    duration = max(20, round(100 / fps) * 10)  # players slow down frames shorter than 20 ms
    images[0].save(path, save_all=True, append_images=images[1:], duration=duration, loop=0, optimize=False)
    return len(images)
