"""Denoiser of student features, conditioned on a noise level."""

from __future__ import annotations

from torch import Tensor, nn

from instil.core import Batch
from instil.functional.diffusion.features import TIMES, add_noise, denoise
from instil.functional.errors import squared_error
from instil.functional.keyed_random import keyed_uniform
from instil.functional.noise import box_muller
from instil.functional.pooling import expand_positions, mean_positions
from instil.modules.adapters import PointwiseConv
from instil.modules.connectors import NORMS, Norm, convolutions
from instil.modules.noise_model import Bottleneck, NoiseModel


class FeatureDenoiser(nn.Module):
    """Projection and denoising of student features, with a diffusion model of teacher features.

    Args:
        source: channels of the student.
        target: channels of the teacher.
        reduction: factor by which the autoencoder reduces the channels; 1: no autoencoder is used.
        pointwise: use 1x1 convolutions, for logits (N, C, 1, 1).
        norm: normalisation of the layers.
        dims: number of dimensions of the grid, 2 or 3.
    """

    def __init__(
        self,
        source: int,
        target: int,
        reduction: int,
        pointwise: bool,
        norm: Norm,
        dims: int = 2,
    ):
        super().__init__()
        latent = max(1, target // reduction)
        # Created even if unused: the initial weights after it depend on the random state.
        encoder = nn.Sequential(PointwiseConv(target, latent), NORMS[norm](latent))
        decoder = PointwiseConv(latent, target)
        self.encode: nn.Module = encoder if reduction > 1 else nn.Sequential()
        self.decode: nn.Module = decoder if reduction > 1 else nn.Identity()
        self.project = PointwiseConv(source, latent)
        self.model = NoiseModel(latent, pointwise, norm, dims)
        look = convolutions((latent, 2 * latent, latent), (1, 1), norm, "norm")
        self.look = look if pointwise else Bottleneck(latent, 8, norm, dims)
        self.level = nn.Linear(latent, 2)
        self.refine = convolutions((latent, latent), (1,), norm, "norm")

    def forward(
        self, student: Tensor, teacher: Tensor, batch: Batch, steps: int, stream: str
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Denoise the student features (N, C, *grid) and compute the losses of the diffusion model.

        Returns:
            Refined student features and latent teacher features (N, D, *grid), and per sample (N,)
            the squared error of the predicted noise and of the reconstruction.
        """
        encoded = self.encode(teacher)
        reconstruction_error = squared_error(self.decode(encoded), teacher)
        latent = encoded.detach()
        shape = tuple(latent.shape[1:])
        noise = box_muller(batch, shape, f"{stream}.noise.0").to(latent.dtype)
        student_noise = box_muller(batch, shape, f"{stream}.noise.1").to(latent.dtype)
        time = (keyed_uniform(batch, 1, f"{stream}.time")[:, 0] * TIMES).long()
        noise_error = squared_error(self.model(add_noise(latent, noise, time), time), noise)
        projected = self.project(student)
        level = self.level(mean_positions(self.look(projected))).softmax(1)[:, :1]
        level = expand_positions(level, projected)
        mixed = level * projected + (1 - level) * student_noise
        refined = self.refine(denoise(mixed, self.model, steps))
        return refined, latent, noise_error, reconstruction_error
