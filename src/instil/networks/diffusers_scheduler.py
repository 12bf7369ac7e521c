"""Parts of a diffusion model that the configuration of a scheduler of diffusers defines."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from instil.functional.diffusion.parameterisations import parameterisation
from instil.functional.diffusion.parts import PartSpec
from instil.functional.diffusion.schedules import noise_schedule

FILE = "scheduler_config.json"
"""Name of the configuration of a scheduler."""
NO_SCHEDULER = "none"
"""Value of the option ``scheduler`` for none."""
SOLVERS = {
    "DDPMScheduler": "ddim",
    "DDIMScheduler": "ddim",
    "EulerDiscreteScheduler": "ddim",
    "DPMSolverMultistepScheduler": "dpm_solver",
    "FlowMatchEulerDiscreteScheduler": "ddim",
}
"""Class of diffusers -> solver. Euler steps in the noise level of diffusers are steps of DDIM."""
FLOW = "FlowMatchEulerDiscreteScheduler"
PARAMETERISATIONS = {"epsilon": "eps", "sample": "x0", "v_prediction": "v"}
"""Prediction type of diffusers -> parameterisation."""
SHAPES = {
    "linear": "linear",
    "scaled_linear": "scaled_linear",
    "squaredcos_cap_v2": "squared_cosine",
    "sigmoid": "sigmoid",
}
"""Betas of diffusers -> shape of the schedule ``betas``."""
UNSUPPORTED: dict[str, tuple[Any, ...]] = {
    "trained_betas": (None,),
    "rescale_betas_zero_snr": (False, None),
    "use_flow_sigmas": (False, None),
    "use_dynamic_shifting": (False, None),
    "invert_sigmas": (False, None),
    "timestep_type": ("discrete", None),
}
"""Entries that change the noise or the network's time, and the values that are supported."""
REMEDY = (
    "Save the pipeline with another scheduler (pipeline.scheduler = "
    "DDIMScheduler.from_config(pipeline.scheduler.config)), or state parameterisation and schedule "
    "and set scheduler: none"
)


class SchedulerParts(NamedTuple):
    """Parts of a diffusion model.

    Attributes:
        parameterisation: what the network predicts.
        schedule: noise schedule.
        solver: solver of the sampler.
    """

    parameterisation: PartSpec
    schedule: PartSpec
    solver: str


DEFAULTS = SchedulerParts("v", "cosine", "ddim")
"""Parts of a diffusion model without options and scheduler."""


def scheduler_file_of(
    network: str, network_options: Mapping[str, Any], scheduler: str | None, base: Path
) -> Path | None:
    """Return the configuration of the scheduler of a diffusion model; None if there is none.

    Args:
        network: network inside the model.
        network_options: its options; ``path`` is the folder of a network of diffusers.
        scheduler: folder of a saved pipeline or of its scheduler; ``none`` for no scheduler; None
            for that of the network.
        base: folder of the recipe.

    Raises:
        ValueError: for a folder ``scheduler`` without a configuration.
    """
    if scheduler == NO_SCHEDULER:
        return None
    if scheduler is None:
        path = network_options.get("path")
        if path is None or not network.startswith("diffusers:"):
            return None
        return _file_in(base / path)
    file = _file_in(base / scheduler)
    if file is None:
        raise ValueError(
            "scheduler: no configuration of a scheduler. Expected the folder of a saved pipeline "
            f"of diffusers with scheduler/{FILE}, got {base / scheduler}"
        )
    return file


def scheduler_text(options: Mapping[str, Any], base: Path) -> str:
    """Return the text of the configuration of the scheduler of a denoiser, for fingerprints.

    Args:
        options: options of the network ``denoiser``.
        base: folder of the recipe.
    """
    network, network_options = str(options.get("network")), options.get("network_options") or {}
    try:
        file = scheduler_file_of(network, network_options, options.get("scheduler"), base)
    except ValueError:
        # The model is not built, so that it has no fingerprint.
        return ""
    return "" if file is None else file.read_text(encoding="utf-8")


def _file_in(folder: Path) -> Path | None:
    """Configuration in the folder of a pipeline, of its scheduler or of its network."""
    candidates = (folder / "scheduler", folder, folder.parent / "scheduler")
    return next((path / FILE for path in candidates if (path / FILE).is_file()), None)


def read_scheduler(file: Path) -> SchedulerParts:
    """Read the parts of a diffusion model from the configuration of a scheduler.

    Args:
        file: ``scheduler_config.json`` of diffusers.

    Raises:
        ValueError: for a file that is not such a configuration, and an unsupported scheduler.
    """
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"scheduler: {file} is not JSON: {error}") from error
    name = config.get("_class_name") if isinstance(config, Mapping) else None
    if name not in SOLVERS:
        raise ValueError(
            f"scheduler: {file} has an unsupported class. Expected one of {', '.join(SOLVERS)}, "
            f"got {name}. {REMEDY}"
        )
    for key, supported in UNSUPPORTED.items():
        if key in config and config[key] not in supported:
            raise ValueError(
                f"scheduler: {file} has an unsupported {key}. Expected {supported[0]}, got "
                f"{config[key]}. {REMEDY}"
            )
    if name == FLOW:
        options = {"shift": config.get("shift", 1.0), "num_times": _num_times(config)}
        return SchedulerParts("flow", {"type": "flow", **options}, SOLVERS[name])
    kind = _entry(file, config, "prediction_type", "epsilon", PARAMETERISATIONS)
    shape = _entry(file, config, "beta_schedule", "linear", SHAPES)
    schedule = {
        "type": "betas",
        "shape": shape,
        "num_times": _num_times(config),
        "first_beta": config.get("beta_start", 1e-4),
        "last_beta": config.get("beta_end", 0.02),
    }
    solver = "ddim" if config.get("solver_order") == 1 else SOLVERS[name]
    return SchedulerParts(kind, schedule, solver)


def merged_parts(
    file: Path | None,
    own_parameterisation: PartSpec | None,
    own_schedule: PartSpec | None,
    own_solver: str | None,
) -> SchedulerParts:
    """Return the parts of a diffusion model, from its options and from a scheduler.

    Args:
        file: configuration of the scheduler; None if there is none.
        own_parameterisation: that of the recipe; None: not stated.
        own_schedule: that of the recipe; None: not stated.
        own_solver: that of the recipe, which need not be that of the scheduler; None: not stated.

    Raises:
        ValueError: if parameterisation or schedule contradict those of the scheduler, and for an
            unsupported scheduler.
    """
    parts = DEFAULTS if file is None else read_scheduler(file)
    if file is not None:
        _check_agreement(file, parts, own_parameterisation, own_schedule)
    return SchedulerParts(
        own_parameterisation or parts.parameterisation,
        own_schedule or parts.schedule,
        own_solver or parts.solver,
    )


def _check_agreement(
    file: Path,
    parts: SchedulerParts,
    own_parameterisation: PartSpec | None,
    own_schedule: PartSpec | None,
) -> None:
    """Refuse options that contradict those of the scheduler."""
    if own_parameterisation is not None:
        name, expected = (
            parameterisation(spec).name for spec in (own_parameterisation, parts.parameterisation)
        )
        if name != expected:
            raise ValueError(
                f"parameterisation: it contradicts {file}. Expected {expected}, got {name}. Leave "
                "it out, or set scheduler: none"
            )
    if own_schedule is not None and _differs(own_schedule, parts.schedule):
        raise ValueError(
            f"schedule: its noise contradicts {file}. Expected {parts.schedule}, got "
            f"{own_schedule}. Leave it out, or set scheduler: none"
        )


def _num_times(config: Mapping[str, Any]) -> int:
    return int(config.get("num_train_timesteps", 1000))


def _entry(
    file: Path, config: Mapping[str, Any], key: str, default: str, names: Mapping[str, str]
) -> str:
    """Name for an entry of the configuration."""
    value = config.get(key, default)
    if value not in names:
        raise ValueError(
            f"scheduler: {file} has an unsupported {key}. Expected one of {', '.join(names)}, got "
            f"{value}. {REMEDY}"
        )
    return names[value]


def _differs(first: PartSpec, second: PartSpec) -> bool:
    """Whether two schedules have other noise, or give the network another time."""
    one, other = noise_schedule(first), noise_schedule(second)
    if one.max_time != other.max_time:
        return True
    times = torch.linspace(0.1, 1, 10, dtype=torch.float64)
    for method in ("alpha", "sigma", "network_time"):
        first_values, second_values = (getattr(each, method)(times) for each in (one, other))
        if not torch.allclose(first_values, second_values, rtol=1e-4, atol=1e-4):
            return True
    return False
