"""What varied pictures do to our V, M and C, in the same states of a game."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from attention_games import VARIATIONS, our_games

from worldmodels.agent.agent import Agent
from worldmodels.memory.features import select_features
from worldmodels.rollout.loop import EpisodeRecorder, run_episodes
from worldmodels.shapes import Episode, Job
from worldmodels.vision.model import sample_latent, to_images

FINDINGS = ["game", "variation", "n", "steps", "V's error", "V's error, plain", "z moved", "M's surprise", "C acts otherwise"]
"""What pictures do to V, M and C, as a mean over steps; in brackets as a multiple of V's error with plain pictures, or M's
surprise minus that with plain pictures: it may be below 0, and then a multiple would say nothing.

The first error is that of V's picture against the picture that V saw, the second against the plain picture of the same state,
both summed over pixels. Latents moved by so much of their variance. M's surprise is its negative log-likelihood of the next
latent in nats per dimension. C acts otherwise: the share of steps at which it presses another button, or how far it steers
elsewhere (-1 to 1).
"""


class Seen(NamedTuple):
    """What our agent makes of the pictures of episodes: a row a step."""

    latents: torch.Tensor  # mean of z, (N, Z)
    error: torch.Tensor  # V's squared error against the picture that it saw, summed over pixels, (N,)
    plain_error: torch.Tensor  # ... against the plain picture of the same state, (N,)
    surprise: torch.Tensor  # M's negative log-likelihood of the next z, nats per dimension, (N,)
    actions: torch.Tensor  # C's, (N, A)


@torch.inference_mode()
def look(agent: Agent, plain: Episode, frames: np.ndarray) -> Seen:
    """Show V, M and C the pictures ``frames`` (T+1, 64, 64, 3) in place of those of a plain episode, with its actions."""
    images, unchanged = (to_images(torch.from_numpy(each)) for each in (frames, plain.frames))
    mean, log_variance = agent.vision.encode(images)
    drawn = agent.vision.decode(mean)
    error, plain_error = ((drawn - each).square().sum((1, 2, 3))[:-1] for each in (images, unchanged))
    z = sample_latent(mean, log_variance, torch.randn(mean.shape, generator=torch.Generator().manual_seed(plain.seed)))
    policy, state = agent.policy(), agent.initial_state(1)
    policy.start([Job(0, plain.seed)])
    restart, surprise, actions = torch.ones(1, 1, dtype=torch.bool), [], []
    for step, taken in enumerate(torch.from_numpy(plain.actions)):
        now = z[step : step + 1]
        actions.append(policy.act(select_features(agent.config.features, now, agent.memory, state)))
        told, _, state = agent.memory(now[:, None], taken[None, None], restart, state)
        surprise.append(-told.latent.log_prob(z[None, None, step + 1]).mean().reshape(1))
        restart = torch.zeros_like(restart)
    return Seen(mean[:-1], error, plain_error, torch.cat(surprise), torch.cat(actions))


def replay(agent: Agent, variation: str, folder: Path, episode: Episode) -> np.ndarray:
    """Return the frames of a varied game in which the actions of a plain episode are taken.

    Raises:
        RuntimeError: other rewards come: the variation changes more than pictures.
    """
    frames = []
    with closing(our_games(agent.game, variation, folder)) as env:
        frames += [env.start([episode.seed])[0]]
        for action, reward in zip(episode.actions, episode.rewards, strict=True):
            step = env.step(action[None])
            if abs(float(step.rewards[0]) - float(reward)) > 1e-5:
                raise RuntimeError(
                    f"{variation}, seed {episode.seed}: the same actions give other rewards than in the plain game"
                )
            frames.append(step.frames[0])
    return np.stack(frames)


def diagnose(agent: Agent, game: str, seeds: Sequence[int], folder: Path) -> Iterator[list[str]]:
    """Yield a row of ``FINDINGS`` for each variation: what it does to V, M and C in the same states."""
    episodes: list[Episode] = []
    with closing(agent.real_world(our_games(agent.game, "plain", folder))) as world:
        run_episodes(world, agent.policy(), seeds, lanes=16, recorder=EpisodeRecorder(episodes.append))
    plain: list[Seen] = []
    for variation in VARIATIONS[game]:
        seen = [look(agent, each, replay(agent, variation, folder, each)) for each in episodes]
        plain = plain or seen
        before, now = (Seen(*(torch.cat(parts) for parts in zip(*each, strict=True))) for each in (plain, seen))
        error, plain_error, usual = (float(x.mean()) for x in (now.error, now.plain_error, before.error))
        moved = float((now.latents - before.latents).square().mean(0).sum() / before.latents.var(0).sum())
        surprise, expected = float(now.surprise.mean()), float(before.surprise.mean())
        other = (
            pressed(now.actions) != pressed(before.actions) if game == "doom" else (now.actions - before.actions).abs()[:, 0]
        )
        row = [game, variation, str(len(episodes)), str(len(now.error)), f"{error:.1f} ({error / usual:.2f})"]
        row += [f"{plain_error:.1f} ({plain_error / usual:.2f})", f"{moved:.3f}"]
        row += [f"{surprise:.3f} ({surprise - expected:+.3f})", f"{float(other.float().mean()):.3f}"]
        yield row


def pressed(actions: torch.Tensor) -> torch.Tensor:
    """Return which button each action of Take Cover presses: -1 left, 0 none, 1 right."""
    return (actions > 1 / 3).int() - (actions < -1 / 3).int()
