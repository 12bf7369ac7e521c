"""Denoising score matching: the training loss of diffusion models."""

from __future__ import annotations

from typing import Annotated, ClassVar, get_args

import torch
from annotated_types import Gt
from torch import Tensor
from typing_extensions import Doc

from instil.cards import suggestion
from instil.core import Batch, Card, Objective, Outputs, to_float32
from instil.functional.diffusion.loss_weights import WEIGHTS, LossWeight
from instil.functional.errors import squared_error
from instil.functional.logits import apply_reduction
from instil.items import Items


def denoising_loss(
    denoised: Tensor, clean: Tensor, weight: Tensor, reduction: str = "mean"
) -> Tensor:
    """Weighted mean squared error of denoised images (Ho et al. 2020, Eq. 14).

    Args:
        denoised: (N, ...).
        clean: (N, ...).
        weight: weight of each image (N,), such as the signal-to-noise ratio.
        reduction: ``"mean"`` over the images, or ``"none"`` (one value per image).

    Returns:
        Scalar, or (N,) for ``reduction="none"``.

    Raises:
        ValueError: if the shapes differ.

    Example:
        >>> import torch
        >>> weight = torch.tensor([1.0, 3.0])
        >>> denoising_loss(torch.zeros(2, 1, 2, 2), torch.ones(2, 1, 2, 2), weight)
        tensor(2.)
    """
    if denoised.shape != clean.shape or weight.shape != denoised.shape[:1]:
        shapes = [tuple(tensor.shape) for tensor in (denoised, clean, weight)]
        raise ValueError(
            "denoised, clean, weight: the shapes do not fit. Expected (N, ...) twice and (N,), got "
            f"{', '.join(map(str, shapes))}."
        )
    values = squared_error(to_float32(denoised), to_float32(clean)) * to_float32(weight)
    return apply_reduction(values, reduction, torch.zeros(len(values), dtype=torch.int64))


class Denoising(Objective):
    """Denoising score matching of the student's ``denoised`` images.

    The student draws noise and time of each sample itself. No label is read, except by a
    class-conditional student as its input.
    """

    items = Items(per_sample=True)
    card = Card(
        "Denoising Diffusion Probabilistic Models",
        "https://arxiv.org/abs/2006.11239",
        "NeurIPS",
        2020,
        source="labels",
        tasks=("diffusion",),
        labels=("single", "none"),
        zero_at_match=False,
        equation=r"w(t) \, \frac{1}{D} \lVert \hat{x}_0(\alpha_t x_0 + \sigma_t \epsilon, t) - x_0 "
        r"\rVert^2",
        use="The training loss of every diffusion model: of the teacher, and of a student that is "
        "trained alone. Combine it with a distillation loss as an anchor to the data.",
        pitfalls="Values of two weights or parameterisations do not compare. Weights that grow "
        "with the signal-to-noise ratio are large at small times: snr and edm need eps or edm "
        "predictions, or a distribution of times that avoids these times. A falling loss does not "
        "mean better images; compare samples.",
    )
    needs: ClassVar = {
        "student": (
            ("denoised",),
            ("clean",),
            ("prediction",),
            ("target",),
            ("alpha",),
            ("sigma",),
        ),
        "teacher": (),
    }

    def __init__(
        self,
        noise_weight: Annotated[
            LossWeight,
            Doc(
                "weight over the noise level: output (squared error of the network output), one, "
                "snr, snr_plus_one, truncated_snr, min_snr or edm, of the denoised image"
            ),
        ] = "output",
        gamma: Annotated[float, Gt(0), Doc("largest weight of min_snr")] = 5.0,
    ) -> None:
        super().__init__()
        names = get_args(LossWeight)
        if noise_weight not in names:
            raise ValueError(
                f"noise_weight: unknown loss weight '{noise_weight}'. Expected one of "
                f"{', '.join(names)}.{suggestion(noise_weight, names, is_listed=True)}"
            )
        self.noise_weight = noise_weight
        self.gamma = gamma

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        if self.noise_weight == "output":
            # The same loss by the denoised image would lose digits at small times.
            one = torch.ones_like(student["alpha"])
            return denoising_loss(student["prediction"], student["target"], one, "none")
        snr = (student["alpha"] / student["sigma"]) ** 2
        weight = WEIGHTS[self.noise_weight](snr, self.gamma)
        return denoising_loss(student["denoised"], student["clean"], weight, "none")
