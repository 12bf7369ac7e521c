"""Text classification: one class, several classes or a yes-or-no decision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from instil.core import Batch, Card, Objective, Objectives, Outputs
from instil.tasks.bases.checks import check_compares_tokens
from instil.tasks.bases.classes import ClassTask
from instil.tasks.bases.main_output import outputs_by_role
from instil.tasks.bases.own_labels import label_arguments
from instil.tasks.bases.token_types import token_types
from instil.tasks.classification import forward_kwargs

ROLES = ("logits", "hidden_states", "attentions", "embedding", "loss")
"""Outputs of a transformers model that are used."""


def call(model: nn.Module, batch: Batch, pass_labels: bool = False) -> Outputs:
    """Compute the outputs of a text classifier.

    Args:
        model: a transformers model, or one that is called like it.
        batch: ``input_ids`` and optionally ``attention_mask`` (N, L). For models with
            segments, the second of two texts begins after the first end token.
        pass_labels: whether a model with the parameter ``labels`` receives them in train mode, and
            computes its own ``loss``.

    Returns:
        ``logits`` (N, C) and ``embedding`` (N, D): the model's own, or the last hidden state of
        the first token. A tap replaces it. If the model returns them, ``hidden_states`` (the
        embeddings, then the output of each layer) and ``attentions`` (N, H, L, L), after the
        softmax.
    """
    tokens = {key: batch[key] for key in ("input_ids", "attention_mask") if key in batch}
    labels = label_arguments(model, batch) if pass_labels else {}
    result = model(**tokens, **token_types(model, batch), **forward_kwargs(model), **labels)
    outputs = outputs_by_role(result, ROLES)
    if "embedding" not in outputs and "hidden_states" in outputs:
        outputs["embedding"] = outputs["hidden_states"][-1][:, 0]
    return outputs


class TextClassification(ClassTask):
    """Text classification.

    Labels are int64 (N,) for ``single``, float (N, C) for ``multi``, float (N, 1) for ``binary``;
    -100 for no label.

    Args:
        kind: kind of the labels: ``single``, ``multi`` or ``binary``.
    """

    card = Card("Text classification", tasks=("text_classification",))
    title = "text classification"
    names = ("input_ids", "attention_mask", "label")
    inputs = ("input_ids", "attention_mask")
    call = staticmethod(call)

    def check(self, objectives: Mapping[str, Objective] | Objectives) -> None:
        """Raise ValueError for an objective on features, which have a row for each token."""
        super().check(objectives)
        check_compares_tokens(objectives, {"features"})

    def to_batch(self, inputs: Tensor | Mapping[str, Tensor], shape: Sequence[int]) -> Batch:
        """Return token ids (N, L), without padding unless ``attention_mask`` is given."""
        batch = dict(inputs) if isinstance(inputs, Mapping) else {"input_ids": inputs}
        if "input_ids" in batch:
            batch.setdefault("attention_mask", torch.ones_like(batch["input_ids"]))
        return super().to_batch(batch, shape)
