"""V: the convolutional variational autoencoder that turns a frame into a latent (paper, section 2.1 and appendix A.1)."""

from typing import Any, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from worldmodels.params import Config


class VisionConfig(Config):
    """The shape of V."""

    latent: int = Field(ge=1, le=1024)  # Z, latent size (paper: 32 for CarRacing, 64 for Take Cover)
    # decode what differs from the mean image of the first data. Else V first learns all that never changes, and only then where
    # something small is
    background: bool = False


class VisionLossConfig(Config):
    """The loss of V."""

    kl_tolerance: float = Field(default=0.5, ge=0, le=10)  # nats of KL per latent dimension that cost nothing (paper: 0.5)
    # extra weight of a pixel by how far it is from the mean image, so that small moving things (fireballs) count; 0 is the
    # paper's plain squared error
    pixel_weight: float = Field(default=0.0, ge=0, le=1000)


class VisionLoss(NamedTuple):
    """Mean over the batch of: the loss, the plain squared error summed over pixels, and the KL divergence in nats."""

    total: Tensor
    reconstruction: Tensor
    kl: Tensor
    latent: Tensor  # the sample that was decoded, (B, Z)


class Vision(nn.Module):
    """Convolutional VAE for 64x64 RGB frames; 4,348,547 parameters with 32 latents, 4,446,915 with 64.

    >>> model = Vision(VisionConfig(latent=32))
    >>> sum(p.numel() for p in model.parameters())
    4348547
    """

    background: Tensor
    """Logits of the mean image, (3, 64, 64), if ``config.background``; zeros before it is trained."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = nn.Sequential(
            nn.Conv2d(3, 32, 4, 2), nn.ReLU(),
            nn.Conv2d(32, 64, 4, 2), nn.ReLU(),
            nn.Conv2d(64, 128, 4, 2), nn.ReLU(),
            nn.Conv2d(128, 256, 4, 2), nn.ReLU(),
            nn.Flatten(),
        )  # fmt: skip
        self.mean = nn.Linear(1024, config.latent)
        self.log_variance = nn.Linear(1024, config.latent)
        self.expand = nn.Linear(config.latent, 1024)
        self.first = nn.ConvTranspose2d(1024, 128, 5, 2)
        self.decoder = nn.Sequential(
            nn.ReLU(), nn.ConvTranspose2d(128, 64, 5, 2),
            nn.ReLU(), nn.ConvTranspose2d(64, 32, 6, 2),
            nn.ReLU(), nn.ConvTranspose2d(32, 3, 6, 2),
        )  # fmt: skip
        if config.background:
            self.register_buffer("background", torch.zeros(3, 64, 64))
        for layer in [*self.encoder, *self.decoder]:  # not `first`, a matrix product: its 3 million weights would be copied
            layer.to(memory_format=torch.channels_last)

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return next(self.parameters()).device

    def describe(self) -> dict[str, Any]:
        """Return what ``from_description`` needs to build the same shape again."""
        # A V without a background is told as before there was one: it is of the same shape.
        unsaid = {"background"} if not self.config.background else None
        return {"config": self.config.model_dump(exclude=unsaid)}

    @classmethod
    def from_description(cls, description: dict[str, Any]) -> "Vision":
        """Build an untrained V of a described shape."""
        return cls(VisionConfig(**description["config"]))

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log variance of q(z | frame), (B, Z) each, for ``images`` (B, 3, 64, 64) in [0, 1]."""
        hidden = self.encoder(images.to(self.mean.weight.dtype, memory_format=torch.channels_last))
        return self.mean(hidden).float(), self.log_variance(hidden).float()

    def decode(self, z: Tensor) -> Tensor:
        """Return the images, (B, 3, 64, 64) in [0, 1], that latents ``z`` (B, Z) stand for."""
        hidden = self.expand(z.to(self.expand.weight.dtype))
        # The first deconvolution sees a 1x1 image: it is a matrix product, and much faster as one.
        weight = self.first.weight  # (1024, 128, 5, 5)
        image = (hidden @ weight.flatten(1)).view(-1, *weight.shape[1:]) + _bias(self.first).view(1, -1, 1, 1)
        logits = self.decoder(image.contiguous(memory_format=torch.channels_last)).float()
        return torch.sigmoid(logits + self.background.float() if self.config.background else logits)

    def loss(self, images: Tensor, noise: Tensor, config: VisionLossConfig, mean_image: Tensor) -> VisionLoss:
        """Return the loss: squared error summed over pixels, plus the KL above its tolerance.

        Args:
            images: (B, 3, 64, 64) in [0, 1].
            noise: (B, Z) standard normal, for the reparametrised sample.
            config: weights of the two terms.
            mean_image: (3, 64, 64), the mean over the data set; used if ``pixel_weight`` is not 0.
        """
        mean, log_variance = self.encode(images)
        z = sample_latent(mean, log_variance, noise)
        error = (self.decode(z) - images).square()
        kl = -0.5 * (1 + log_variance - mean.square() - log_variance.exp()).sum(1)
        weighted = error * (1 + config.pixel_weight * (images - mean_image).abs()) if config.pixel_weight else error
        free = kl.clamp(min=config.kl_tolerance * self.config.latent)
        total = (weighted.sum((1, 2, 3)) + free).mean()
        return VisionLoss(total, error.detach().sum((1, 2, 3)).mean(), kl.detach().mean(), z)


def sample_latent(mean: Tensor, log_variance: Tensor, noise: Tensor) -> Tensor:
    """Return z = mean + exp(log_variance / 2) * noise, all of shape (..., Z)."""
    return mean + (0.5 * log_variance).exp() * noise


def to_images(frames: Tensor) -> Tensor:
    """Return ``frames`` (B, 64, 64, 3) uint8 as images (B, 3, 64, 64) float in [0, 1]."""
    return frames.permute(0, 3, 1, 2).float() / 255


def to_frames(images: Tensor) -> Tensor:
    """Return images (B, 3, 64, 64) in [0, 1] as frames (B, 64, 64, 3) uint8."""
    return (images.permute(0, 2, 3, 1) * 255).round().clamp(0, 255).to(torch.uint8)


def _bias(layer: nn.ConvTranspose2d) -> Tensor:
    assert layer.bias is not None
    return layer.bias
