"""A small convolutional student with two stages, and batches of pictures, for schemes with further
ends on its stages.
"""

from __future__ import annotations

import torch

from instil.core import Batch, Net
from instil.networks.cnn import cnn
from tests import nets


def images(seed: int = 0, size: int = 16) -> Batch:
    """Half of the labels are missing."""
    inputs = nets.batch(size, seed)
    image = torch.rand(size, 1, 6, 6, generator=torch.Generator().manual_seed(seed))
    return {"image": image, **{key: inputs[key] for key in ("label", "index")}}


def timed(step: int = 0) -> Batch:
    """The batch of a step, with its clock."""
    return images(step) | {
        "step": torch.tensor(step),
        "progress": torch.tensor(step / 100),
        "seed": torch.tensor(0),
    }


def staged(width: int = 3, stages: int = 3) -> Net:
    """A net of five classes without BatchNorm."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        taps = {"features": [f"stages.{stage}" for stage in range(stages)], "head": "head:weight"}
        return Net(cnn(5, width=width, stages=stages, norm="none"), taps=taps)
