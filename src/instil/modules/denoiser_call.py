"""Calls of denoisers by a batch, on any noise schedule, and access to the denoiser of a net."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from instil.core import Batch, Net, Outputs, Teacher
from instil.modules.denoiser import SCALARS, Denoiser


def denoiser_call(model: nn.Module, batch: Batch) -> Outputs:
    """Compute the outputs of a denoiser.

    Args:
        model: a ``Denoiser``.
        batch: either ``noisy`` (N, C, H, W) and ``time`` (N,), and optionally ``label`` (N,) and
            the ``SCALARS`` (N,); or ``image`` (N, C, H, W) in [0, 1], for which noise and time are
            drawn.

    Returns:
        ``denoised`` and ``prediction``; for drawn noise also ``target``, the prediction of a
        perfect network, ``clean``, ``noise``, ``noisy`` (N, C, H, W), ``time``, ``alpha`` and
        ``sigma`` (N,).

    Raises:
        ValueError: for a model that is not a ``Denoiser``.
    """
    denoiser = check_denoiser(model)
    if "noisy" in batch:
        scalars = {name: batch[name] for name in SCALARS if name in batch}
        return dict(denoiser(batch["noisy"], batch["time"], batch.get("label"), **scalars))
    sample = denoiser.draw(batch)
    outputs = dict(denoiser(sample.noisy, sample.time, sample.label))
    alpha, sigma = denoiser.schedule.coefficients(sample.time, sample.clean)
    target = denoiser.parameterisation.target(sample.clean, sample.noise, alpha, sigma)
    return outputs | {
        "target": target,
        "clean": sample.clean,
        "noise": sample.noise,
        "noisy": sample.noisy,
        "time": sample.time,
        "alpha": alpha.flatten(),
        "sigma": sigma.flatten(),
    }


def denoiser_batch(
    noisy: Tensor, time: Tensor, label: Tensor | None = None, **scalars: Tensor
) -> Batch:
    """Batch by which a net with a denoiser is called.

    Args:
        noisy: noisy images (N, C, H, W).
        time: times (N,).
        label: classes (N,), None for no class.
        **scalars: numbers (N,) that the network reads besides the time.
    """
    batch: dict[str, Any] = {"noisy": noisy, "time": time, **scalars}
    return batch if label is None else batch | {"label": label}


def translate(
    noisy: Tensor, time: Tensor, source: Denoiser, target: Denoiser
) -> tuple[Tensor, Tensor]:
    """Noisy images and times of one schedule as those of another with the same noise level.

    Args:
        noisy: noisy images (N, ...) of ``source``.
        time: their times (N,) > 0.
        source: denoiser with the schedule of ``noisy``.
        target: denoiser with the other schedule.

    Returns:
        Images and times of ``target``; the arguments themselves if the schedules are equal.
    """
    old, new = source.schedule, target.schedule
    if source.options["schedule"] == target.options["schedule"]:
        return noisy, time
    new_time = new.time_of_ratio(old.sigma(time) / old.alpha(time))
    # Standard deviations, not signals, are divided: a schedule may end without signal.
    ratio = new.coefficients(new_time, noisy)[1] / old.coefficients(time, noisy)[1]
    return noisy * ratio, new_time


def denoiser_of(net: nn.Module) -> Denoiser:
    """Denoiser of a ``Net``, or of a teacher with one.

    Raises:
        ValueError: if its model is not a ``Denoiser``.
    """
    if isinstance(net, Teacher):
        net = getattr(net, "net", net)
    model = net.model if isinstance(net, Net) else net
    return check_denoiser(model)


def reconfigure_copy(denoiser: nn.Module, options: Mapping[str, Any]) -> None:
    """Change options of a denoiser that keeps its weights, such as a copy of the teacher.

    Args:
        denoiser: the copy. Another model has no options to change.
        options: new options, see ``Denoiser.reconfigure``.

    Raises:
        ValueError: for a parameterisation or a schedule that the weights were not trained for, and
            for options of another model.
    """
    if not isinstance(denoiser, Denoiser):
        if options:
            raise ValueError(
                "options: a copy of the teacher has its options. Expected changes for a smaller "
                f"copy, got {', '.join(options)}. Leave options out"
            )
        return
    trained, schedule = denoiser.parameterisation, denoiser.schedule
    denoiser.reconfigure(**options)
    new = denoiser.parameterisation
    # Both kinds of EDM read the noise level and predict an image, on any schedule.
    if trained.reads_noise_level and new.reads_noise_level:
        return
    for key, old, value in (
        ("parameterisation", trained.name, new.name),
        ("schedule", schedule.name, denoiser.schedule.name),
    ):
        if old != value:
            raise ValueError(
                f"options.{key}: the weights of the teacher were trained for {old}. Expected "
                f"{old}, got {value}. Leave {key} out, or set it for the teacher too"
            )


def check_denoiser(model: Any) -> Denoiser:
    """Return the model if it is a ``Denoiser``.

    Raises:
        ValueError: for another model.
    """
    if not isinstance(model, Denoiser):
        raise ValueError(
            f"model: a {type(model).__name__} is not a diffusion model. Expected a Denoiser. Set "
            "model: networks:denoiser, with the network as its option, or wrap it in "
            "instil.modules.denoiser.Denoiser"
        )
    return model
