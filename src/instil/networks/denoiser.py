"""A diffusion model around another network."""

from __future__ import annotations

import contextlib
import importlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from instil.cards import Fraction, NonNegativeInt, PositiveInt
from instil.catalogue.user_code import UntrustedCode
from instil.functional.diffusion.parts import PartSpec
from instil.modules.denoiser import Denoiser
from instil.networks.diffusers_scheduler import merged_parts, scheduler_file_of


def denoiser(
    channels: PositiveInt,
    size: PositiveInt | tuple[PositiveInt, PositiveInt],
    build_part: Callable[..., nn.Module],
    classes: NonNegativeInt = 0,
    network: str = "unet",
    network_options: Mapping[str, Any] | None = None,
    conditional: bool = False,
    pretrained: bool = False,
    parameterisation: PartSpec | None = None,
    schedule: PartSpec | None = None,
    times: PartSpec = "uniform",
    label_dropout: Fraction = 0.1,
    steps: PositiveInt = 32,
    solver: str | None = None,
    guidance: float = 0.0,
    scheduler: str | None = None,
    base: Path = Path(),
) -> nn.Module:
    """Build a diffusion model for the task ``diffusion``.

    Args:
        channels: number of channels of the image.
        size: side, or height and width, of the image.
        build_part: function that builds the network.
        classes: number of classes of the data.
        network: network inside: ``unet``, ``diffusers:UNet2DModel``,
            ``diffusers:DiTTransformer2DModel`` or ``my_module:build``.
        network_options: options of the network. Channels, size and classes of the data are filled
            in.
        conditional: whether the model reads the class of an image.
        pretrained: whether the library of the network loads its weights.
        parameterisation: ``eps``, ``x0``, ``v``, ``flow``, ``edm`` or ``consistency``; or a mapping
            of ``type`` and its options, as for the schedule and the times. None: that of the
            scheduler, or ``v`` without one.
        schedule: noise schedule: ``cosine``, ``flow``, ``linear``, ``betas`` or ``karras``. None:
            that of the scheduler, or ``cosine`` without one.
        times: distribution of training times: ``uniform``, ``log_normal``, ``logit_normal`` or
            ``grid``.
        label_dropout: share of training samples without class, for guidance.
        steps: number of sampling steps.
        solver: ``ddim``, ``euler``, ``heun``, ``dpm_solver`` or ``consistency``. None: that of the
            scheduler, or ``ddim`` without one.
        guidance: weight of classifier-free guidance in sampling.
        scheduler: folder of a saved pipeline of diffusers, or of its scheduler, which defines
            parameterisation, schedule and solver. None: the folder ``path`` of a network of
            diffusers, if it has one. ``none``: no scheduler is read.
        base: folder of the recipe, from which relative paths start.

    Raises:
        ValueError: for unknown or contradictory options.
    """
    num_classes = _num_classes(classes, conditional)
    options = dict(network_options or {})
    file = scheduler_file_of(network, options, scheduler, base)
    parts = merged_parts(file, parameterisation, schedule, solver)
    if network.startswith("diffusers:") and "path" not in options:
        options = _diffusers_options(network, channels, size, num_classes) | options
    facts = {"channels": channels, "size": size, "classes": num_classes}
    with _inner_errors():
        model = build_part(network, options, pretrained=pretrained, **facts)
    return Denoiser(
        model,
        parameterisation=parts.parameterisation,
        schedule=parts.schedule,
        times=times,
        num_classes=num_classes,
        label_dropout=label_dropout,
        steps=steps,
        solver=parts.solver,
        guidance=guidance,
    )


def _num_classes(classes: int, conditional: bool) -> int:
    """Number of classes that the model reads."""
    if conditional and not classes:
        raise ValueError(
            "conditional: the data have no classes. Expected labelled images. Set conditional: "
            "false"
        )
    return classes if conditional else 0


@contextlib.contextmanager
def _inner_errors() -> Iterator[None]:
    """Name the options of the inner network by their path, which is one level deeper."""
    try:
        yield
    except UntrustedCode:
        raise
    except ValueError as error:
        key, colon, problem = str(error).partition(": ")
        if key != "model" and not key.startswith("options."):
            raise
        path = "network" if key == "model" else f"network_{key}"
        raise ValueError(f"options.{path}{colon}{problem}") from error


def _diffusers_options(
    network: str, channels: int, size: int | tuple[int, int], num_classes: int
) -> dict[str, Any]:
    """Options of a class of diffusers that the data define."""
    try:
        library = importlib.import_module("diffusers")
    except ImportError:
        # The source raises an error with the command that installs it.
        return {}
    model_class = getattr(library, network.partition(":")[2], None)
    if model_class is None:
        return {}
    options: dict[str, Any] = {
        "sample_size": size,
        "in_channels": channels,
        "out_channels": channels,
        # Both have one more class, for no label; DiT adds it itself.
        "num_class_embeds": num_classes + 1 if num_classes else None,
        "num_embeds_ada_norm": num_classes or None,
    }
    parameters = inspect.signature(model_class.__init__).parameters
    return {key: value for key, value in options.items() if key in parameters and value is not None}
