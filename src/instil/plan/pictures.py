"""Images that a data-free scheme generates."""

from __future__ import annotations

import torch
from torch import Tensor

from instil.capabilities import SynthesizesImages
from instil.core import Scheme, side_effect_free
from instil.engine import init_distributed
from instil.experiment.experiment import Experiment
from instil.experiment.training_options import num_training_steps
from instil.items import to_device


def synthetic_images(scheme: Scheme, stage: Experiment, seed: int) -> Tensor | None:
    """Generate images with a data-free scheme, as at the end of its training.

    All ranks must call this function.

    Args:
        scheme: the trained scheme.
        stage: stage of the scheme; its samples determine the shape of the images.
        seed: seed of the arm.

    Returns:
        (N, C, H, W) in [0, 1], or None if the scheme generates no images.
    """
    batch = next(iter(stage.loader(stage.samples, seed)))
    clock = {
        "step": torch.tensor(num_training_steps(stage)),
        "progress": torch.tensor(1.0),
        "seed": torch.tensor(seed),
    }
    with side_effect_free(scheme):
        batch = to_device(batch, init_distributed()) | clock
        if isinstance(scheme, SynthesizesImages):
            return scheme.synthetic_images(batch)
        return scheme.before_step(batch).get("image")
