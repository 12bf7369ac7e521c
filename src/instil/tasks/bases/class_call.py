"""Call of an image-text network that also embeds the classes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from instil.core import Batch, Outputs
from instil.roles import LazyOutputs
from instil.tasks.bases.class_prompts import ClassPrompts


class CallWithClasses:
    """Call of a network that also returns ``class_embedding`` (C, D), if it is read.

    The embeddings are computed again only after a change of the weights.

    Args:
        call: function ``(model, batch) -> outputs`` of an image-text network.
        prompts: prompts of the classes.
    """

    def __init__(self, call: Callable[..., Outputs], prompts: ClassPrompts):
        self.call = call
        self.prompts = prompts
        self._versions: list[int] = []
        self._embedding: Tensor | None = None

    @property
    def keywords(self) -> dict[str, Any]:
        """Options of the call, such as ``size``, ``mean`` and ``std``."""
        return dict(getattr(self.call, "keywords", {}))

    @property
    def reads(self) -> dict[str, str]:
        """Keys that the task reads, and keys of the batch in their place."""
        return dict(getattr(self.call, "reads", {}))

    def __call__(self, model: nn.Module, batch: Batch) -> Outputs:
        outputs = self.call(model, batch)
        return LazyOutputs(outputs, {"class_embedding": lambda: self._classes(model, batch)})

    def _classes(self, model: nn.Module, batch: Batch) -> Tensor:
        # An optimizer step and a loaded checkpoint change the version of a parameter.
        versions = [parameter._version for parameter in model.parameters()]
        if self._embedding is None or versions != self._versions:
            net = partial(self.call, model)
            with torch.no_grad():
                embedding = self.prompts.embedding(net, batch)
            if embedding is None:
                raise ValueError(
                    "class_embedding: the network does not embed the prompts of task.templates. "
                    "Expected a text tower"
                )
            self._embedding = embedding
            self._versions = versions
        return self._embedding.to(batch["image"].device)
