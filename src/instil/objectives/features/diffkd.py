"""Knowledge diffusion: a diffusion model of teacher features denoises the student's features."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge
from torch import Tensor, nn
from typing_extensions import Doc

from instil.core import Batch, Card, NonNegative, Outputs, Positive, check_bounds, to_float32
from instil.functional.diffusion.features import TIMES
from instil.functional.divergences import kl_divergence
from instil.functional.errors import squared_error
from instil.functional.feature_maps import as_map, grid_of, require_same_shape, resize
from instil.functional.logits import apply_reduction, require_same_logits
from instil.functional.pairs import Pairs, feature_levels
from instil.modules.adapters import match_dtype
from instil.modules.connectors import checked_norm
from instil.modules.feature_denoiser import FeatureDenoiser
from instil.objectives.bases.feature_objective import FeatureObjective


@check_bounds
def diffkd_loss(
    student_features: Tensor,
    teacher_features: Tensor,
    noise_error: Tensor,
    reconstruction_error: Tensor,
    diffusion_weight: NonNegative = 1.0,
    autoencoder_weight: NonNegative = 1.0,
    reduction: str = "mean",
) -> Tensor:
    """Knowledge diffusion loss (Huang et al. 2023, Eq. 7) with the squared difference as distance.

    Args:
        student_features: denoised student features (N, ...).
        teacher_features: latent teacher features (N, ...).
        noise_error: loss (N,) of the diffusion model.
        reconstruction_error: loss (N,) of the autoencoder.
        diffusion_weight: weight of ``noise_error``.
        autoencoder_weight: weight of ``reconstruction_error``.
        reduction: ``"mean"`` or ``"none"`` (one value per sample).

    Returns:
        Scalar, or (N,) for ``reduction="none"``.

    Raises:
        ValueError: if the shapes differ.

    Example:
        >>> import torch
        >>> diffkd_loss(torch.zeros(1, 2), torch.ones(1, 2), torch.ones(1), torch.ones(1))
        tensor(3.)
    """
    student_features, teacher_features = require_same_shape(
        student_features, teacher_features, "diffkd_loss"
    )
    values = squared_error(student_features, teacher_features)
    values = values + diffusion_weight * to_float32(noise_error)
    values = values + autoencoder_weight * to_float32(reconstruction_error)
    return apply_reduction(values, reduction)


class DiffKD(FeatureObjective):
    """Denoised student features and logits near the teacher's.

    Features are compared by their squared difference, logits by the KL divergence. The diffusion
    model is trained at the same time: at a match the loss is its error, not zero.
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
        published_weight=1.0,
        weight_setting="the authors' code, ImageNet, ResNet18 <- ResNet34, T = 1",
        deviations="Every norm is computed per sample (norm: 'batch' is that of the code). The "
        "student is resized to the teacher's grid. As in the code, the comparison also trains the "
        "denoiser.",
        equation=r"\sum_l \left[ \frac{1}{D} \lVert \hat z^s_l - z^t_l \rVert_2^2 + \lambda_d\, "
        r"\mathcal{E}(z^t_l) + \lambda_a \frac{1}{CHW} \lVert d(e(f^t_l)) - f^t_l \rVert_2^2 "
        r"\right] + T^2\, \mathrm{KL}(p^t \Vert \hat p^s) + \lambda_d\, \mathcal{E}(\ell^t), "
        r"\quad z^t = \mathrm{sg}\, e(f^t), \; \mathcal{E}(z) = \frac{1}{D} \lVert "
        r"\epsilon_\theta(\sqrt{\bar\alpha_\tau}\, z + \sqrt{1 - \bar\alpha_\tau}\, \epsilon,\, "
        r"\tau) - \epsilon \rVert_2^2",
        use="For students much weaker than the teacher, whose features are treated as noisy "
        "teacher features. It suits classification and, with logits: false, dense tasks. It "
        "costs a noise model, an autoencoder and projections for each pair, and backward passes "
        "through all denoising steps.",
        pitfalls="Part of the value is the error of the diffusion model and the autoencoder, which "
        "decreases even if the student learns nothing. The comparison also trains the denoiser and "
        "the projections, which can absorb part of it. Noise and times depend on seed, step and "
        "index.",
    )
    needs: ClassVar = dict.fromkeys(("student", "teacher"), (("features",), ("logits",)))

    def __init__(
        self,
        steps: Annotated[int, Ge(1), Doc("number of denoising steps, at most 500")] = 5,
        reduction: Annotated[
            int,
            Ge(1),
            Doc("factor by which the autoencoder reduces the channels; 1: no autoencoder"),
        ] = 2,
        logits: Annotated[bool, Doc("denoise and compare the logits as well")] = True,
        temperature: Annotated[
            Positive, Doc("softmax temperature of the logits; its square is a factor of the KL")
        ] = 1.0,
        diffusion_weight: Annotated[NonNegative, Doc("weight of the noise prediction error")] = 1.0,
        autoencoder_weight: Annotated[NonNegative, Doc("weight of the reconstruction error")] = 1.0,
        norm: Annotated[
            Literal["group", "batch"],
            Doc("group: normalises each sample; batch: the authors' BatchNorm, couples samples"),
        ] = "group",
        pairs: Annotated[
            Pairs,
            Doc(
                "[[student level, teacher level], ...], 0: the shallowest; auto: the deepest levels"
            ),
        ] = "auto",
    ):
        super().__init__(pairs)
        self.norm = norm
        self.connector_norm = checked_norm(norm)
        if steps > TIMES // 2:
            expected = f"Expected at most {TIMES // 2}, half of the {TIMES} times"
            raise ValueError(f"steps: too many denoising steps. {expected}, got {steps}.")
        self.steps = steps
        self.reduction = reduction
        self.logits = logits
        self.temperature = temperature
        self.diffusion_weight = diffusion_weight
        self.autoencoder_weight = autoencoder_weight
        self.denoiser = nn.ModuleList()  # of the logits

    def build(self, student_outputs: Outputs, teacher_outputs: Outputs) -> None:
        """Create a denoiser for each pair of levels, and one for the logits.

        Raises:
            ValueError: if the logits are not (N, C).
        """
        super().build(student_outputs, teacher_outputs)
        self.denoiser = nn.ModuleList()
        if not self.logits:
            return
        student_logits: Tensor = student_outputs["logits"]
        require_same_logits(student_logits, teacher_outputs["logits"], 2)
        if student_logits.ndim != 2:
            raise ValueError(
                "logits: only logits of samples can be denoised. Expected shape (N, C), got "
                f"{tuple(student_logits.shape)}. Set logits: false."
            )
        classes = student_logits.shape[1]
        denoiser = FeatureDenoiser(classes, classes, 1, True, self.norm)
        self.denoiser.append(denoiser.to(student_logits.device, to_float32(student_logits).dtype))

    def connect(self, student: Tensor, teacher: Tensor) -> tuple[nn.Module, str]:
        channels = as_map(student).shape[1], as_map(teacher).shape[1]
        dims = as_map(teacher).ndim - 2
        denoiser = FeatureDenoiser(*channels, self.reduction, False, self.norm, dims)
        description = f"denoised in {self.steps} steps"
        return denoiser.to(student.device, to_float32(student).dtype), description

    def forward(self, student_outputs: Outputs, teacher_outputs: Outputs, batch: Batch) -> Tensor:
        terms = self._feature_terms(student_outputs, teacher_outputs, batch)
        for denoiser in self.denoiser:
            terms.append(self._logit_term(denoiser, student_outputs, teacher_outputs, batch))
        return self.reduce_if_coupled(torch.stack(terms).sum(0))

    def _feature_terms(self, student: Outputs, teacher: Outputs, batch: Batch) -> list[Tensor]:
        student_levels, teacher_levels = feature_levels(student), feature_levels(teacher)
        options = (self.diffusion_weight, self.autoencoder_weight, "none")
        terms = []
        for index, (denoiser, (i, j)) in enumerate(zip(self.adapters, self.matched, strict=True)):
            target = to_float32(as_map(teacher_levels[j]))
            source = resize(to_float32(as_map(student_levels[i])), grid_of(target))
            sides = match_dtype(denoiser, source), match_dtype(denoiser, target)
            # Each denoiser has streams of its own.
            outputs = denoiser(*sides, batch, self.steps, f"{self.stream}.{index}")
            refined, latent, noise_error, decoder_error = outputs
            terms.append(diffkd_loss(refined, latent, noise_error, decoder_error, *options))
        return terms

    def _logit_term(
        self, denoiser: nn.Module, student: Outputs, teacher: Outputs, batch: Batch
    ) -> Tensor:
        source = match_dtype(denoiser, to_float32(student["logits"]))[:, :, None, None]
        target = match_dtype(denoiser, to_float32(teacher["logits"]))[:, :, None, None]
        # Logits have no autoencoder, and no reconstruction error.
        refined, latent, noise_error, _ = denoiser(
            source, target, batch, self.steps, f"{self.stream}.logits"
        )
        log_teacher = (latent.flatten(1) / self.temperature).log_softmax(1)
        log_student = (refined.flatten(1) / self.temperature).log_softmax(1)
        divergence = kl_divergence(log_teacher, log_student) * self.temperature**2
        term: Tensor = divergence + self.diffusion_weight * noise_error
        return term
