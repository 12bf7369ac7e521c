"""Small convolutional student with two stages, and image batches, for schemes with branches."""

from __future__ import annotations

import torch

from instil.core import Batch, Net
from instil.networks.cnn import cnn
from tests import nets


def images(seed: int = 0, size: int = 16) -> Batch:
    """Return a batch; half of the labels are missing."""
    inputs = nets.batch(size, seed)
    image = torch.rand(size, 1, 6, 6, generator=torch.Generator().manual_seed(seed))
    return {"image": image, **{key: inputs[key] for key in ("label", "index")}}


def timed(step: int = 0) -> Batch:
    """Return the batch of a step, with step and progress."""
    return images(step) | {
        "step": torch.tensor(step),
        "progress": torch.tensor(step / 100),
        "seed": torch.tensor(0),
    }


def staged(width: int = 3, stages: int = 3) -> Net:
    """Return a network of five classes without BatchNorm."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        taps = {"features": [f"stages.{stage}" for stage in range(stages)], "head": "head:weight"}
        return Net(cnn(5, width=width, stages=stages, norm="none"), taps=taps)
