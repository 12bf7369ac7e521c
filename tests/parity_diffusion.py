"""Schemes of diffusion models, of regions and of prompts for ``parity.py``, and their batches."""

from __future__ import annotations

from collections.abc import Callable

import torch

from instil.core import Batch, Objectives, Scheme
from instil.schemes.diffusion.add import ADD
from instil.schemes.diffusion.consistency_distillation import ConsistencyDistillation
from instil.schemes.diffusion.consistency_training import ConsistencyTraining
from instil.schemes.diffusion.dmd import DMD
from instil.schemes.diffusion.dmd2 import DMD2
from instil.schemes.diffusion.easy_consistency import EasyConsistency
from instil.schemes.diffusion.f_distill import FDistill
from instil.schemes.diffusion.guidance_distillation import GuidanceDistillation
from instil.schemes.diffusion.ladd import LADD
from instil.schemes.diffusion.lcm import LCM
from instil.schemes.diffusion.mean_flow import MeanFlow
from instil.schemes.diffusion.ode_regression import OdeRegression
from instil.schemes.diffusion.on_policy_diffusion import OnPolicyDiffusion
from instil.schemes.diffusion.progressive import Progressive
from instil.schemes.diffusion.reflow import Reflow
from instil.schemes.diffusion.scm import SCM
from tests import prompted
from tests.schemes import denoisers
from tests.schemes.denoisers import denoiser, matching, teacher
from tests.schemes.offline import test_prompt_loop, test_region_crops

FLOW = {"schedule": "flow", "parameterisation": "flow"}


def small() -> Objectives:
    """Return matching with a weight at which steps of learning rate 0.1 do not diverge."""
    return Objectives(matching(), {"matching": 0.01})


SCHEMES: dict[str, Callable[[], Scheme]] = {
    "add": lambda: ADD(denoiser(), teacher(), small(), fool=0.01),
    "consistency_distillation": lambda: ConsistencyDistillation(
        denoiser(), teacher(), small(), num_times=4, decay=0.9
    ),
    "consistency_training": lambda: ConsistencyTraining(denoiser(), small(), last_times=6),
    "dmd": lambda: DMD(denoiser(), teacher(), small(), num_pairs=20, pair_steps=1),
    "dmd2": lambda: DMD2(denoiser(), teacher(), small(), fake_updates=1),
    "easy_consistency": lambda: EasyConsistency(denoiser(), small()),
    "f_distill": lambda: FDistill(denoiser(), teacher(), small(), fake_updates=1),
    "guidance_distillation": lambda: GuidanceDistillation(
        denoiser(scalars=("guidance",)), teacher(scalars=("guidance",)), small()
    ),
    "ladd": lambda: LADD(denoiser(), teacher(), small(), fool=0.01),
    "lcm": lambda: LCM(denoiser(), teacher(), small(), num_times=4),
    "mean_flow": lambda: MeanFlow(denoiser(scalars=("end_time",), **FLOW), None, small()),
    "ode_regression": lambda: OdeRegression(
        denoiser(), teacher(), small(), num_pairs=20, pair_steps=2
    ),
    "on_policy_diffusion": lambda: OnPolicyDiffusion(denoiser(), teacher(), small(), steps=3),
    "progressive": lambda: Progressive(denoiser(), teacher(), small(), steps=4),
    "reflow": lambda: Reflow(
        denoiser(**FLOW), teacher(**FLOW), small(), num_pairs=20, pair_steps=2
    ),
    "scm": lambda: SCM(denoiser(), teacher(), small()),
    "region_crops": test_region_crops.scheme,
    "prompt_loop": test_prompt_loop.scheme,
}
WHOLE = ("add", "ladd", "mean_flow", "scm", "region_crops", "prompt_loop")
"""Schemes that cannot be sharded."""


def images(seed: int, size: int) -> Batch:
    """Return images; a tenth of them does not count."""
    valid = torch.rand(size, generator=torch.Generator().manual_seed(seed)) < 0.9
    return denoisers.batch(seed, size) | {"valid": valid}


def regions(seed: int, size: int) -> Batch:
    """Return images with texts."""
    return test_region_crops.batch(seed, size)


def prompts(seed: int, size: int) -> Batch:
    """Return images with a box, a point and a mask of an object."""
    return prompted.batch(size, seed)
