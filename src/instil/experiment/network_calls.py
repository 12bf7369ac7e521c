"""Functions that run the networks of a recipe."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from torch import nn

from instil.core import Batch, Outputs
from instil.data.aligned import read_by_teacher
from instil.modules.denoiser import Denoiser
from instil.modules.denoiser_call import denoiser_call
from instil.tasks import classification


def network_call(task: Any, model: nn.Module) -> Callable[..., Outputs]:
    """Function ``(model, batch, ...) -> outputs`` that runs a network.

    Args:
        task: task of the recipe, or its class.
        model: the network. A classifier of a diffusion scheme, such as that of ``add``, reads clean
            images and is not called as a denoiser.
    """
    if task.call is denoiser_call and not isinstance(model, Denoiser):
        return classification.call
    call: Callable[..., Outputs] = task.call
    return call


def call_with_batch(model: Any, batch: Batch) -> Outputs:
    """Outputs of a model that reads the batch itself.

    Args:
        model: a ``ReadsBatch``.
        batch: batch of the data.
    """
    outputs: Outputs = model.call_batch(batch)
    return outputs


def call_with_teacher_tokens(
    call: Callable[..., Any],
    model: nn.Module,
    batch: Batch,
    roles: Collection[str] | None = None,
) -> Any:
    """Outputs of a teacher with its own tokenizer, for its part of the batch.

    Args:
        call: call of the task.
        model: the teacher.
        batch: batch of the data.
        roles: roles that are read; None: all.
    """
    return call(model, read_by_teacher(batch), roles=roles)
