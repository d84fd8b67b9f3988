"""One episode to look at: reality, what V makes of it, and the dream on the same actions."""

from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from worldmodels.agent.agent import Agent
from worldmodels.games.base import BatchEnv
from worldmodels.report.pictures import filmstrip, write_png
from worldmodels.report.video import side_by_side, write_video
from worldmodels.rollout.loop import EpisodeRecorder, run_episodes
from worldmodels.rollout.policies import Policy, ReplayPolicy
from worldmodels.shapes import Episode
from worldmodels.storage.layout import AgentFiles
from worldmodels.vision.model import to_frames, to_images
from worldmodels.worlds.dream import Starts
from worldmodels.worlds.real import RealWorld

TEMPERATURES = (0.1, 0.5, 1.0, 1.15, 1.3)
"""Temperatures of the dreams that are shown beside each other (the paper's, section 4.4)."""
DREAM_STEPS = 300
"""Steps of each of these dreams, at most."""
PICTURES = 12
"""Pictures of a filmstrip."""
FILM_STEPS = 350
"""Steps of the video, at most."""
BATCH = 256
TRAVERSED, TRAVERSAL_STEPS, TRAVERSAL_REACH = 8, 9, 3.0
"""Dimensions of z that are traversed, in how many steps, and how many standard deviations to each side."""


class Demonstration(NamedTuple):
    """All that is shown of an agent. Frames are (T+1, 64, 64, 3) uint8."""

    views: Mapping[str, np.ndarray]  # of ``film_episode``
    dreamt: np.ndarray  # the agent acting in its dream from the same first frame, as long as the episode
    at: Mapping[float, np.ndarray]  # temperature -> the beginning of the same at that temperature
    # dimension of z -> frames (S, 64, 64, 3) as only that one changes, from three standard deviations below the episode's
    # mean to three above; those that vary most in the episode, the widest first
    traversal: Mapping[int, np.ndarray]


def film_episode(agent: Agent, world: RealWorld, *, seed: int, temperature: float) -> tuple[dict[str, np.ndarray], Starts]:
    """Play one real episode with the agent, and dream it on the same actions.

    Returns:
        Frames (T+1, 64, 64, 3) uint8 by what they are called: what the game showed, the same through V, and the dream from the
        same first frame, which may end earlier; and what V made of the real frames, (T+1, Z).
    """
    real: list[Episode] = []
    run_episodes(world, agent.policy(), [seed], recorder=EpisodeRecorder(real.append))
    frames, actions = real[0].frames, torch.from_numpy(real[0].actions)
    with torch.inference_mode():
        parts = [agent.vision.encode(to_images(part)) for part in torch.from_numpy(frames).split(BATCH)]
        latents = Starts(*(torch.cat(part) for part in zip(*parts, strict=True)))
        through = np.concatenate([to_frames(agent.vision.decode(z)).numpy() for z in latents.mean.split(BATCH)])
    dream = _dream(agent, ReplayPolicy(actions), latents, seed, temperature, len(actions))
    return {"real": frames, "real through V": through, "dream, same actions": dream}, latents


def demonstrate(agent: Agent, env: BatchEnv, *, seed: int, temperature: float) -> Demonstration:
    """Play one real episode with the agent, then dream it; closes ``env``.

    Args:
        agent: who plays; its card says when a dream is over.
        env: its game, without lanes.
        seed: of the episode and of the dreams.
        temperature: tau of the dreams, but for those that are shown at several.
    """
    with closing(agent.real_world(env)) as world:
        views, latents = film_episode(agent, world, seed=seed, temperature=temperature)
    steps = len(latents.mean) - 1
    at = {tau: _dream(agent, agent.policy(), latents, seed, tau, min(steps, DREAM_STEPS)) for tau in TEMPERATURES}
    dreamt = _dream(agent, agent.policy(), latents, seed, temperature, steps)
    return Demonstration(views, dreamt, at, _traverse(agent, latents.mean))


def draw(seen: Demonstration, files: AgentFiles, fps: float) -> None:
    """Write the film and the pictures of an agent into its folder ``film``. The same demonstration gives the same bytes.

    Args:
        seen: what is shown.
        files: where ``reconstructions``, ``filmstrip``, ``temperatures``, ``traversal`` and ``video`` go.
        fps: steps of the game in a second.
    """
    real, through, _ = seen.views.values()
    chosen = np.linspace(0, len(real) - 1, PICTURES).astype(int)
    heads = [str(step) for step in chosen]
    write_png(files.reconstructions, filmstrip({"real": real[chosen], "real through V": through[chosen]}, heads=heads))
    _write_strip(files.filmstrip, {**seen.views, "dream, acting": seen.dreamt}, len(real))
    _write_strip(files.temperatures, {f"dream, tau {tau:g}": frames for tau, frames in seen.at.items()})
    heads = [f"{reach:+.2g}" for reach in np.linspace(-TRAVERSAL_REACH, TRAVERSAL_REACH, TRAVERSAL_STEPS)]
    traversed = {f"z{index}": frames for index, frames in seen.traversal.items()}
    write_png(files.traversal, filmstrip(traversed, heads=heads, corner="std"))
    film = side_by_side({label: frames[:FILM_STEPS] for label, frames in seen.views.items()})
    write_video(files.video, film, fps, scale=1)


def _write_strip(path: Path, rows: Mapping[str, np.ndarray], length: int = 0) -> None:
    """Write ``PICTURES`` pictures of each row, evenly over ``length`` frames; 0: over the longest row."""
    every = max(1, (length or max(map(len, rows.values()))) // PICTURES)
    write_png(path, filmstrip({label: frames[: every * PICTURES] for label, frames in rows.items()}, every))


def _dream(agent: Agent, policy: Policy, latents: Starts, seed: int, temperature: float, steps: int) -> np.ndarray:
    """Return the frames of a dream from the first of these latents."""
    starts = Starts(latents.mean[:1].clone(), latents.log_variance[:1].clone())
    world = agent.dream_world(temperature=temperature, limit=steps, starts=starts)
    episodes: list[Episode] = []
    run_episodes(world, policy, [seed], recorder=EpisodeRecorder(episodes.append))
    return episodes[0].frames


@torch.inference_mode()
def _traverse(agent: Agent, mean: Tensor) -> dict[int, np.ndarray]:
    """Return what V draws as one dimension of z after the other is changed. ``mean``: latents of an episode, (T, Z)."""
    centre, std = mean.mean(0), mean.std(0)
    found = {}
    for index in std.argsort(descending=True)[:TRAVERSED].tolist():
        z = centre.repeat(TRAVERSAL_STEPS, 1)
        z[:, index] += std[index] * torch.linspace(-TRAVERSAL_REACH, TRAVERSAL_REACH, TRAVERSAL_STEPS)
        found[index] = to_frames(agent.vision.decode(z)).numpy()
    return found
