"""Distribution matching distillation, with a model of the generated images."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from instil.core import Batch, Net, Outputs, as_net, item_weights, mean
from instil.functional.diffusion.distribution_matching import distribution_matching_gradient
from instil.functional.diffusion.loss_weights import LossWeight, loss_weight
from instil.functional.errors import squared_error
from instil.modules.denoiser_call import denoiser_of, translate
from instil.modules.noisy_sample import NoisySample
from instil.schemes.bases.diffusion import DiffusionScheme


def copy_of_teacher(scheme: DiffusionScheme) -> Net:
    """Trainable copy of the teacher's net, the first model of the generated images.

    Raises:
        ValueError: for a scheme without a teacher.
    """
    net = as_net(getattr(scheme.teacher, "net", scheme.teacher_denoiser))
    return copy.deepcopy(net).train().requires_grad_(True)


def matching_target(scheme: DiffusionScheme, sample: NoisySample, fake_denoised: Tensor) -> Outputs:
    """Outputs of the teacher: generated images moved along ``distribution_matching_gradient``.

    With the objective ``denoised_matching`` and the distance ``l2``, the student has the gradient
    of distribution matching.

    Args:
        scheme: the scheme.
        sample: generated images and their noisy versions.
        fake_denoised: clean images that the model of the generated images predicts.
    """
    denoised = scheme.teacher_denoised(sample.noisy, sample.time, sample.label)
    gradient = distribution_matching_gradient(sample.clean, denoised, fake_denoised)
    # The squared error has twice the gradient of the loss of the paper.
    weight = torch.full_like(sample.time, 0.5)
    return {"denoised": sample.clean.detach() - gradient, "loss_weight": weight}


def denoising_error(
    scheme: DiffusionScheme,
    fake: Net,
    outputs: Outputs,
    sample: NoisySample,
    weight: LossWeight,
    batch: Batch,
) -> Tensor:
    """Denoising loss (scalar) of the model of the generated images.

    Args:
        scheme: the scheme.
        fake: the model.
        outputs: outputs of the model for noisy images.
        sample: generated images and their noisy versions.
        weight: weight of the error of the clean image over the noise level.
        batch: batch of the step.
    """
    denoiser = denoiser_of(fake)
    _, time = translate(sample.noisy, sample.time, scheme.student_denoiser, denoiser)
    alpha, sigma = denoiser.schedule.coefficients(time, sample.noisy)
    kind = denoiser.parameterisation
    if weight == "output":
        # The same loss by the clean image would lose digits at small times.
        target = kind.target(sample.clean, sample.noise, alpha, sigma)
        values = squared_error(outputs["prediction"], target)
    else:
        factor = loss_weight(weight, alpha.flatten(), sigma.flatten(), kind)
        values = factor * squared_error(outputs["denoised"], sample.clean)
    return mean(values, item_weights(batch))
