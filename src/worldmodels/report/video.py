"""Frames to a video file: H.264 in MP4, or GIF."""

from collections.abc import Iterable, Iterator, Mapping
from fractions import Fraction
from itertools import chain
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from worldmodels.errors import ParamsError
from worldmodels.report.pictures import enlarge, world_colour
from worldmodels.report.style import INK, PAPER_WHITE, rgb
from worldmodels.storage.layout import damaged, require

SCALE = 4
SMOOTH = 32.0
"""Pictures a second, about, of a film of fewer frames."""
BAR = 28
"""Height of the labels above the views, in pixels."""
POSTER = 1.0
"""Second of a film that stands for it."""


def side_by_side(views: Mapping[str, np.ndarray]) -> Iterator[np.ndarray]:
    """Yield pictures of several views of an episode beside each other, four times their size, each below its label.

    Args:
        views: label -> frames (T, 64, 64, 3) uint8. A view that ends early stays, darker, and says that it is
            over. A label that holds the word ``real`` or ``dream`` has that world's colour.
    """
    width, font = SCALE * next(iter(views.values())).shape[2], ImageFont.load_default(15)
    bar = Image.new("RGB", (width * len(views), BAR), PAPER_WHITE)
    draw = ImageDraw.Draw(bar)
    for column, label in enumerate(views):
        ends = (column * width, BAR - 4, (column + 1) * width - 1, BAR - 1)
        draw.rectangle(ends, fill=rgb(world_colour(label, INK)))
        draw.text((column * width + 8, BAR // 2 - 2), label, fill=INK, font=font, anchor="lm")
    over = {}
    for label, frames in views.items():
        last = Image.fromarray(enlarge(frames[-1], SCALE) // 3)
        ImageDraw.Draw(last).text((8, 8), "over", fill=PAPER_WHITE, font=font)
        over[label] = np.asarray(last)
    for step in range(max(map(len, views.values()))):
        row = [enlarge(frames[step], SCALE) if step < len(frames) else over[label] for label, frames in views.items()]
        yield np.concatenate([np.asarray(bar), np.concatenate(row, 1)])


def write_video(path: Path, frames: Iterable[np.ndarray], fps: float, *, scale: int = SCALE) -> int:
    """Write frames as a video, pixels kept sharp. The same frames give the same bytes.

    In an MP4, a frame that stays for long fades into the next one, so that an agent of few steps a second moves evenly, as it
    does on the page of ``wm play``.

    Args:
        path: ends in .mp4 (H.264) or .gif; folders are made.
        frames: (H, W, 3) uint8 each, all of one size; read one at a time. H.264 needs even sides, times the scale.
        fps: of the given frames, a second; a GIF rounds each frame's time to hundredths of a second.
        scale: how many times their size.

    Returns:
        How many pictures were written.

    Raises:
        ParamsError: the suffix is another.
        ValueError: there is no frame.
    """
    writers = {".mp4": _write_mp4, ".gif": _write_gif}
    write = writers.get(path.suffix.lower())
    if write is None:
        suffix = path.suffix or "(none)"
        raise ParamsError(f"{path}: cannot write a video with the suffix {suffix!r}. Use .mp4 or .gif.")
    frames = iter(frames)
    first = next(frames, None)
    if first is None:
        raise ValueError(f"{path}: there is no frame to write")
    path.parent.mkdir(parents=True, exist_ok=True)
    return write(path, (enlarge(frame, scale) for frame in chain([first], frames)), fps)


def picture_of(path: Path) -> np.ndarray:
    """Return a frame of a video, (H, W, 3) uint8: the first at or after ``POSTER``, else the last.

    Raises:
        ArtifactError: the file is missing, or no video.
    """
    import av

    frame = None
    try:
        with av.open(str(require(path))) as container:
            for frame in container.decode(video=0):
                if frame.time is not None and frame.time >= POSTER:
                    break
    except (av.FFmpegError, IndexError) as error:
        raise damaged(path, f"no video: {error}") from None
    if frame is None:
        raise damaged(path, "no video: it has no frame")
    return frame.to_ndarray(format="rgb24")


def faded(frames: Iterator[np.ndarray], steps: int) -> Iterator[np.ndarray]:
    """Yield ``steps`` pictures for every frame, each nearer to the next frame; the last frame stays.

    >>> [picture.item() for picture in faded(iter(np.array([[10], [20]], np.uint8)), 2)]
    [10, 15, 20, 20]
    """
    frame = next(frames)
    for following in chain(frames, [None]):
        yield frame
        there = frame if following is None else following
        for step in range(1, steps):
            mixed = frame.astype(np.uint16) * (steps - step) + there.astype(np.uint16) * step
            yield ((mixed + steps // 2) // steps).astype(np.uint8)
        frame = there


def _write_mp4(path: Path, frames: Iterator[np.ndarray], fps: float) -> int:
    import av

    count, steps = 0, max(1, round(SMOOTH / fps))
    with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart", "fflags": "+bitexact"}) as container:
        stream = container.add_stream("libx264", rate=Fraction(steps * fps).limit_denominator(1000))
        stream.pix_fmt = "yuv420p"  # the one that every browser and player shows
        stream.thread_count = 1  # x264's output depends on its number of threads
        stream.options = {"crf": "20", "preset": "medium", "flags": "+bitexact"}
        for count, frame in enumerate(faded(frames, steps), start=1):
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
