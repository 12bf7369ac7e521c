"""Check of losses on lists of passages of different lengths."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from instil.core import UNLABELLED, Batch, Objective, Objectives
from instil.functional.ranking import PADDED_SCORE

NUM_PASSAGES = 5
"""Number of passages of a query in the check."""
TOLERANCE = 1e-3
"""Largest change of a gradient by missing passages, as a share; rounding stays far below."""


def check_counts_candidates(objectives: Mapping[str, Objective] | Objectives) -> None:
    """Check that missing passages of a query do not change what a loss on the scores teaches.

    The gradient of each loss by random scores is computed with and without passages that are
    missing on both sides.

    Args:
        objectives: objectives by name.

    Raises:
        ValueError: for a loss that counts missing passages.
    """
    for name, objective in objectives.items():
        assert isinstance(objective, Objective)
        complete, padded = (_gradient(objective, num_missing) for num_missing in (0, 3))
        if complete is None or padded is None:
            continue
        if (complete - padded).abs().max() <= TOLERANCE * complete.abs().max():
            continue
        raise ValueError(
            f"objectives.{name}: {type(objective).__name__} compares the scores of all passages, "
            "also of missing ones, and some queries have fewer passages than others. Expected "
            "lists of one length, or a loss such as kd or margin_mse"
        )


def _gradient(objective: Objective, num_missing: int) -> Tensor | None:
    """Gradient of a copy by random scores of passages; None if it cannot read these alone."""
    scores = torch.randn(2, 4, NUM_PASSAGES, generator=torch.Generator().manual_seed(0))
    student, teacher = F.pad(scores, (0, num_missing), value=PADDED_SCORE)
    student.requires_grad_()
    label = F.one_hot(torch.arange(4), NUM_PASSAGES).float()
    batch: Batch = {
        "label": F.pad(label, (0, num_missing), value=float(UNLABELLED)),
        "index": torch.arange(4),
        "view": torch.zeros(4, dtype=torch.int64),
        "step": torch.tensor(0),
        "seed": torch.tensor(0),
        "progress": torch.tensor(0.0),
    }
    single = Objectives({"loss": copy.deepcopy(objective)})
    outputs = {"logits": student}, {"logits": teacher}
    try:
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            torch.manual_seed(0)
            single.build(*outputs)
            loss = single(*outputs, batch).losses["loss"]
            gradient: Tensor = torch.autograd.grad(loss, student)[0]
    except (ValueError, RuntimeError, KeyError, IndexError):
        # Other checks name what is missing.
        return None
    return gradient[:, :NUM_PASSAGES]
