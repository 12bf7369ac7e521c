"""Texts to classes: one, several or yes-or-no."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from instil.core import Batch, Card, Outputs
from instil.tasks.bases.classes import ClassTask
from instil.tasks.classification import forward_kwargs

ROLES = ("logits", "hidden_states", "attentions", "embedding")


def call(model: nn.Module, batch: Batch) -> Outputs:
    """``logits`` (N, C) for ``input_ids`` and ``attention_mask`` (N, L), where the batch has one, of a transformers model or one that answers alike.

    ``hidden_states`` (the embeddings, then the output of each layer) and ``attentions`` (N, H, L, L), softmaxed, come where the model gives them;
    ``embedding`` (N, D) is the last hidden state of the first token, unless the model has its own or a tap names another.
    """
    wanted = {"attention_mask": batch["attention_mask"]} if "attention_mask" in batch else {}
    answer = model(input_ids=batch["input_ids"], **wanted, **forward_kwargs(model))
    if not isinstance(answer, Mapping):
        return {"logits": answer[0] if isinstance(answer, (tuple, list)) else answer}
    outputs = {role: answer[role] for role in ROLES if answer.get(role) is not None}
    if "embedding" not in outputs and "hidden_states" in outputs:
        outputs["embedding"] = outputs["hidden_states"][-1][:, 0]
    return outputs


class TextClassification(ClassTask):
    """What the loop and the command line ask of the task; ``kind`` is that of the labels: ``single``, ``multi`` or ``binary``.

    Labels are int64 (N,) for ``single``, float (N, C) for ``multi``, (N, 1) for ``binary``; -100 where there is none.
    """

    card = Card("Text classification", tasks=("text_classification",))
    title = "text classification"
    names = ("input_ids", "attention_mask", "label")
    inputs = ("input_ids", "attention_mask")
    call = staticmethod(call)

    def to_batch(self, given: Tensor | Mapping[str, Tensor], shape: Sequence[int]) -> Batch:
        """Token numbers (N, L), without padding unless ``attention_mask`` comes too."""
        batch = dict(given) if isinstance(given, Mapping) else {"input_ids": given}
        if "input_ids" in batch:
            batch.setdefault("attention_mask", torch.ones_like(batch["input_ids"]))
        return super().to_batch(batch, shape)
