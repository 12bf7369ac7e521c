"""Knowledge diffusion: a diffusion model of the teacher's features takes the noise out of the student's before they are compared."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge
from torch import Tensor, nn

from instil.core import Batch, Card, NonNegative, Outputs, Positive, keyed_uniform, to_float32
from instil.functional.diffusion import TIMES, add_noise, denoise
from instil.functional.divergences import kl_divergence
from instil.functional.errors import squared_error
from instil.functional.feature_maps import as_map, require_same_shape, resize
from instil.functional.logits import apply_reduction, require_same_logits
from instil.functional.noise import box_muller
from instil.functional.pairs import Pairs, feature_levels
from instil.modules.adapters import match_dtype
from instil.modules.connectors import NORMS, Norm, convolutions
from instil.modules.noise_model import Bottleneck, NoiseModel
from instil.objectives.bases.normed_objective import NormedObjective


def diffkd_loss(
    student: Tensor,
    teacher: Tensor,
    noise_error: Tensor,
    reconstruction_error: Tensor,
    diffusion_weight: float = 1.0,
    autoencoder_weight: float = 1.0,
    reduction: str = "mean",
) -> Tensor:
    """Mean squared difference of the denoised student and the teacher's latent (N, ...), and weighted the errors (N,) of those who make them.

    Huang et al. 2023, eq. 7 with the squared difference as the distance. Raises ValueError where the shapes differ.
    """
    student, teacher = require_same_shape(student, teacher, "diffkd_loss")
    compared = squared_error(student, teacher)
    return apply_reduction(
        compared
        + diffusion_weight * to_float32(noise_error)
        + autoencoder_weight * to_float32(reconstruction_error),
        reduction,
    )


class Denoiser(nn.Module):
    """A student stage projected, denoised and projected again; the teacher's latent stage; and what trains the diffusion model."""

    def __init__(self, source: int, target: int, reduction: int, pointwise: bool, norm: Norm):
        super().__init__()
        latent = max(1, target // reduction)
        self.encode, self.decode = (
            nn.Sequential(nn.Conv2d(target, latent, 1), NORMS[norm](latent)),
            nn.Conv2d(latent, target, 1),
        )
        if reduction == 1:
            self.encode, self.decode = nn.Sequential(), nn.Identity()  # type: ignore[assignment]
        self.project = nn.Conv2d(source, latent, 1)
        self.model = NoiseModel(latent, pointwise, norm)
        look = convolutions((latent, 2 * latent, latent), (1, 1), norm, "norm")
        self.look = look if pointwise else Bottleneck(latent, 8, norm)
        self.level = nn.Linear(latent, 2)
        self.refine = convolutions((latent, latent), (1,), norm, "norm")

    def forward(
        self, student: Tensor, teacher: Tensor, batch: Batch, steps: int, salt: int
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The refined student and the teacher's latent (N, D, H, W), and each sample's squared error of noise and of reconstruction (N,)."""
        encoded = self.encode(teacher)
        lost = squared_error(self.decode(encoded), teacher)
        latent = encoded.detach()
        shape = latent.shape[1], latent.shape[2], latent.shape[3]
        noise, other = (
            box_muller(batch, shape, salt + number).to(latent.dtype) for number in (0, 1)
        )
        time = (keyed_uniform(batch, 1, salt + 2)[:, 0] * TIMES).long()
        error = squared_error(self.model(add_noise(latent, noise, time), time), noise)
        projected = self.project(student)
        level = self.level(self.look(projected).mean((2, 3))).softmax(1)[:, 0, None, None, None]
        mixed = level * projected + (1 - level) * other
        return self.refine(denoise(mixed, self.model, steps)), latent, error, lost


class DiffKD(NormedObjective):
    """The denoised student near the teacher: squared difference of the stages' latents, and KL of the logits. A small diffusion model learns the
    teacher's side meanwhile; at a match the loss is its errors, not zero.

    ``steps``: of denoising.
    ``reduction``: how much fewer channels the autoencoder's latent has than the teacher's stage; 1 is no autoencoder.
    ``logits``: the logits are denoised and compared too.
    ``temperature``: of the logits' KL, with its square as a factor.
    ``diffusion_weight``: of the error of the predicted noise.
    ``autoencoder_weight``: of the error of reconstruction.
    ``norm``: in all learned parts; group normalises each sample, batch is the authors' BatchNorm, which couples the samples.
    ``pairs``: auto is the deepest stages.
    """

    deepest = True
    card = Card(
        "Knowledge diffusion for distillation",
        "https://arxiv.org/abs/2305.15712",
        "NeurIPS",
        2023,
        source="features",
        finite_logits=True,
        zero_at_match=False,
        deviations="every norm is of a sample alone (norm: 'batch' is the code's); the student is resized to the teacher's grid. As in the code, the "
        "denoiser learns from the comparison too",
        equation=r"\sum_l \left[ \frac{1}{D} \lVert \hat z^s_l - z^t_l \rVert_2^2 + \lambda_d\, \mathcal{E}(z^t_l) + \lambda_a \frac{1}{CHW} "
        r"\lVert d(e(f^t_l)) - f^t_l \rVert_2^2 \right] + T^2\, \mathrm{KL}(p^t \Vert \hat p^s) + \lambda_d\, \mathcal{E}(\ell^t), \quad z^t = "
        r"\mathrm{sg}\, e(f^t), \; \mathcal{E}(z) = \frac{1}{D} \lVert \epsilon_\theta(\sqrt{\bar\alpha_\tau}\, z + \sqrt{1 - \bar\alpha_\tau}\, "
        r"\epsilon,\, \tau) - \epsilon \rVert_2^2",
        use="Students much weaker than the teacher, whose features are taken as noisy ones of it; classification, and with logits: false dense "
        "tasks. It costs a noise model, an autoencoder and projections for each pair, and backward passes through all steps of denoising.",
        pitfalls="Part of the value is the error of the diffusion model and the autoencoder, which falls without the student having learned "
        "anything. The denoiser and the projections learn from the comparison too, and can take part of it on themselves. Noise and times are "
        "drawn by seed, step and index. The authors' weight is 1.",
    )
    needs: ClassVar = dict.fromkeys(("student", "teacher"), (("features",), ("logits",)))

    def __init__(
        self,
        steps: Annotated[int, Ge(1)] = 5,
        reduction: Annotated[int, Ge(1)] = 2,
        logits: bool = True,
        temperature: Positive = 1.0,
        diffusion_weight: NonNegative = 1.0,
        autoencoder_weight: NonNegative = 1.0,
        norm: Literal["group", "batch"] = "group",
        pairs: Pairs = "auto",
    ):
        super().__init__(norm, pairs)
        if steps > TIMES // 2:
            raise ValueError(
                f"steps: {steps} steps from the middle of {TIMES} times; at most {TIMES // 2}"
            )
        self.steps, self.reduction, self.logits, self.temperature = (
            steps,
            reduction,
            logits,
            temperature,
        )
        self.diffusion_weight, self.autoencoder_weight = diffusion_weight, autoencoder_weight
        self.denoiser = nn.ModuleList()  # of the logits

    def build(self, student: Outputs, teacher: Outputs) -> None:
        """Make a denoiser for each pair and one for the logits. Raises ValueError for logits of more than samples and classes."""
        super().build(student, teacher)
        self.denoiser = nn.ModuleList()
        if self.logits:
            mine: Tensor = student["logits"]
            require_same_logits(mine, teacher["logits"], 2)
            if mine.ndim != 2:
                raise ValueError(
                    f"logits of shape {tuple(mine.shape)} cannot be denoised, only (N, C); say logits: false"
                )
            made = Denoiser(mine.shape[1], mine.shape[1], 1, True, self.norm)
            self.denoiser.append(made.to(mine.device, to_float32(mine).dtype))

    def connect(self, student: Tensor, teacher: Tensor) -> tuple[nn.Module, str]:
        made = Denoiser(
            as_map(student).shape[1], as_map(teacher).shape[1], self.reduction, False, self.norm
        )
        return made.to(student.device, to_float32(student).dtype), f"denoised in {self.steps} steps"

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        mine, theirs = feature_levels(student), feature_levels(teacher)
        terms, weights = [], (self.diffusion_weight, self.autoencoder_weight)
        for number, (denoiser, (i, j)) in enumerate(zip(self.adapters, self.matched, strict=True)):
            target = to_float32(as_map(theirs[j]))
            stage = resize(to_float32(as_map(mine[i])), (target.shape[2], target.shape[3]))
            refined, latent, error, lost = denoiser(
                match_dtype(denoiser, stage),
                match_dtype(denoiser, target),
                batch,
                self.steps,
                3 * number + 3,
            )
            terms.append(diffkd_loss(refined, latent, error, lost, *weights, reduction="none"))
        for denoiser in self.denoiser:
            pair = (
                match_dtype(denoiser, to_float32(side["logits"]))[:, :, None, None]
                for side in (student, teacher)
            )
            refined, latent, error, _ = denoiser(*pair, batch, self.steps, 0)
            log_p, log_q = (
                (values.flatten(1) / self.temperature).log_softmax(1)
                for values in (latent, refined)
            )
            terms.append(
                kl_divergence(log_p, log_q) * self.temperature**2 + self.diffusion_weight * error
            )  # nothing is encoded
        return self.reduce_if_coupled(torch.stack(terms).sum(0))
