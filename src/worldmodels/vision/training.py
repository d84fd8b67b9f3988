"""Training V on frames streamed from disk."""

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from worldmodels.errors import WorldModelsError
from worldmodels.learning.fit import Observe, OptimiserConfig, Row, fit
from worldmodels.learning.initialisation import initialise
from worldmodels.params import Config
from worldmodels.seeds import stream_seed
from worldmodels.storage.checkpoint import Checkpoint
from worldmodels.storage.episodes import FrameReader
from worldmodels.vision.joint import Joint, JointConfig, paid_and_ends
from worldmodels.vision.model import Vision, VisionConfig, VisionLossConfig, to_images

CLIP = 1000.0
"""Greatest norm of the gradient."""
HELD_OUT = 20
"""One chunk in so many is for validation."""
ACTIVE_VARIANCE = 0.01
"""A latent dimension is active if its mean varies by more than this over frames (Burda et al. 2016, section 5.2)."""
DARKEST = 0.01
"""The background is at least that far from black and from white: where a sigmoid is all but flat, nothing is learned."""
POOL = 256
"""Chunks that are mixed at a time: 16,384 frames, 200 MB."""
AVERAGED = 64
"""Chunks of which the mean image is made, at most."""


Read = Callable[[list[int]], Sequence[np.ndarray]]
"""Reads chunks: their frames, and what else is learned from, each (N, ...)."""


class VisionTraining(Config):
    """The ``vision`` section of an environment."""

    model: VisionConfig  # shape of V
    loss: VisionLossConfig = VisionLossConfig()  # weights of its terms
    joint: JointConfig | None = None  # V learns beside its pictures what is paid and what ends the game
    optimiser: OptimiserConfig  # how it is trained
    # the V of the iteration before is trained on only if its error on the new frames is above so many times its error on the
    # earlier frames (``novelty``); else it stays as it is, and so do the latents of the earlier frames. 0: it is always
    # trained on
    refresh: float = Field(default=0.0, ge=0)


def new_vision(config: VisionConfig, seed: int) -> Vision:
    """Return an untrained V."""
    model = Vision(config)
    initialise(model, torch.Generator().manual_seed(stream_seed(seed, "vision")))
    return model


def train_vision(
    model: Vision,
    reader: FrameReader,
    config: VisionTraining,
    *,
    seed: int,
    updates: Iterable[int],
    observe: Observe,
    checkpoint: Checkpoint | None = None,
) -> list[Row]:
    """Train V in place on the frames of ``reader``; return the curve. ``checkpoint``: see ``fit``.

    Batches, noise and order depend on ``seed`` and the number of the update alone.

    Raises:
        WorldModelsError: a batch would hold a frame twice.
    """
    held_out = list(range(0, len(reader), HELD_OUT))
    training = sorted(set(range(len(reader))) - set(held_out)) or held_out
    if config.optimiser.updates and config.optimiser.batch > reader.total:
        raise WorldModelsError(
            f"vision.optimiser.batch is {config.optimiser.batch:,}, and there are {reader.total:,} frames: lower it, or "
            "collect more episodes."
        )
    read: Read = lambda chunks: (reader.frames(chunks),)  # noqa: E731
    joint = None
    if config.joint is not None:
        read, actions = _with_facts(reader, config.joint)
        joint = Joint(config.joint, model, actions, torch.Generator().manual_seed(stream_seed(seed, "joint")))
    batches = enumerate(_batches(read, training, config.optimiser.batch, seed))
    validation = _spread(reader, held_out, 8 * config.optimiser.batch)
    mean_image = _mean_image(reader, training).to(model.device)
    if model.config.background and not bool(model.background.any()):
        model.background.copy_(torch.logit(mean_image, eps=DARKEST))
    loss_config = config.loss

    def terms(images: Tensor, noise: Tensor, facts: Sequence[Tensor] = ()) -> dict[str, Tensor]:
        loss = model.loss(images, noise, loss_config, mean_image)
        found = {"loss": loss.total, "reconstruction": loss.reconstruction, "kl": loss.kl}
        if joint is not None and facts:
            event, end = joint.errors(loss.latent, *facts)
            found |= {"loss": loss.total + joint.config.weight * (event + end), "event": event, "end": end}
        return found

    def noise_of(name: object, count: int) -> Tensor:
        generator = torch.Generator().manual_seed(stream_seed(seed, "vision noise", name))
        return torch.randn(count, model.config.latent, generator=generator).to(model.device)

    def loss(update: int) -> dict[str, Tensor]:
        # A resumed training passes over those before.
        frames, *facts = (torch.from_numpy(part) for part in next(batch for number, batch in batches if number == update))
        noise = noise_of(update, len(frames))
        return terms(to_images(frames.to(model.device)), noise, [part.to(model.device) for part in facts])

    @torch.inference_mode()
    def validate() -> dict[str, float]:
        parts = [part.to(model.device) for part in torch.from_numpy(validation).split(config.optimiser.batch)]
        values = [terms(to_images(part), noise_of(f"validation {i}", len(part))) for i, part in enumerate(parts)]
        weights = np.array([len(part) for part in parts]) / len(validation)
        figures = {name: float(sum(w * v[name].item() for w, v in zip(weights, values, strict=True))) for name in values[0]}
        return figures | {
            "active_dimensions": active_dimensions(torch.cat([model.encode(to_images(part))[0] for part in parts]))
        }

    return fit(
        joint or model,
        loss,
        config.optimiser,
        updates=updates,
        observe=observe,
        validate=validate,
        clip=CLIP,
        checkpoint=checkpoint,
    )


@torch.inference_mode()
def novelty(model: Vision, reader: FrameReader, earlier: int, frames: int = 1024) -> float:
    """Return V's squared error on new frames over its error on earlier ones, on ``frames`` of either: 1 if nothing is new.

    ``earlier``: how many of the reader's chunks come from earlier, at least 1.
    """
    if earlier == len(reader):
        return 1.0
    before, after = (_spread(reader, list(chunks), frames) for chunks in (range(earlier), range(earlier, len(reader))))
    return _error(model, after) / max(_error(model, before), 1e-12)


def _error(model: Vision, frames: np.ndarray) -> float:
    total = 0.0
    for part in torch.from_numpy(frames).split(256):
        images = to_images(part.to(model.device))
        total += float((model.decode(model.encode(images)[0]) - images).square().sum())
    return total / len(frames)


def active_dimensions(mean: Tensor) -> int:
    """Return how many latent dimensions tell frames apart. ``mean``: (N, Z), V's means of N frames."""
    return int((mean.var(0) > ACTIVE_VARIANCE).sum())


def _batches(read: Read, chunks: list[int], size: int, seed: int) -> Iterator[Sequence[np.ndarray]]:
    """Yield shuffled batches for ever: the chunks in random order, mixed within pools that fit into memory."""
    epoch = 0
    left: Sequence[np.ndarray] = ()
    while True:
        random = np.random.Generator(np.random.PCG64(stream_seed(seed, "batches", epoch)))
        order = random.permutation(chunks)
        for start in range(0, len(order), POOL):
            pool = read(order[start : start + POOL].tolist())
            if left:
                pool = [np.concatenate(parts) for parts in zip(left, pool, strict=True)]
            shuffled = random.permutation(len(pool[0]))
            whole = len(pool[0]) - len(pool[0]) % size
            for i in range(0, whole, size):
                yield [part[shuffled[i : i + size]] for part in pool]
            left = [part[shuffled[whole:]] for part in pool]
        epoch += 1


def _with_facts(reader: FrameReader, config: JointConfig) -> tuple[Read, int]:
    """Return what reads frames, and beside them actions, what is paid and what ends the game; and the length of an action."""
    facts = reader.facts()
    told = (facts["action"], *paid_and_ends(facts["reward"], facts["terminal"], facts["first"], config.steps))
    begins = np.searchsorted(facts["chunk"], np.arange(len(reader) + 1))

    def read(chunks: list[int]) -> Sequence[np.ndarray]:
        rows = np.concatenate([np.arange(begins[chunk], begins[chunk + 1]) for chunk in chunks])
        return (reader.frames(chunks), *(part[rows] for part in told))

    return read, facts["action"].shape[1]


def _spread(reader: FrameReader, chunks: list[int], count: int) -> np.ndarray:
    """Return about ``count`` frames spread evenly over chunks."""
    each = max(1, -(-count // len(chunks)))
    taken = chunks[:: max(1, len(chunks) // count)]
    parts = []
    for chunk in taken:
        frames = reader.frames([chunk])
        parts.append(frames[:: max(1, len(frames) // each)][:each])
    return np.concatenate(parts)[:count]


def _mean_image(reader: FrameReader, chunks: list[int]) -> Tensor:
    frames = reader.frames(chunks[:: -(-len(chunks) // AVERAGED)])
    return torch.from_numpy(frames.mean(0, dtype=np.float64).astype(np.float32) / 255).permute(2, 0, 1)
