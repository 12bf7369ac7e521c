"""Texts to points, so that texts which belong together lie close."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from instil.core import UNLABELLED, Batch, Card, Objective, Objectives, Outputs, to_float32
from instil.tasks.bases.task import Evaluation, Task
from instil.tasks.classification import forward_kwargs

SCALE = 20.0
"""What cosines are multiplied with in a contrast of pairs, as in sentence-transformers."""


def call(model: nn.Module, batch: Batch) -> Outputs:
    """``sentence_embedding`` (N, D) of ``input_ids`` and ``attention_mask`` (N, L); ``partner_embedding`` of ``partner_input_ids`` and its mask.

    An embedding is the mean of the last hidden state over the tokens that are there (Reimers & Gurevych 2019), unless the model gives one itself.
    ``hidden_states`` and ``attentions`` are those of the first text. ``logit_scale`` (1,) is 20.
    """
    outputs = _embedded(model, batch["input_ids"], batch.get("attention_mask"))
    if "partner_input_ids" in batch:
        partner = _embedded(model, batch["partner_input_ids"], batch.get("partner_attention_mask"))
        outputs["partner_embedding"] = partner["sentence_embedding"]
    return outputs | {"logit_scale": outputs["sentence_embedding"].new_full((1,), SCALE)}


def _embedded(model: nn.Module, ids: Tensor, mask: Tensor | None) -> Outputs:
    wanted = {} if mask is None else {"attention_mask": mask}
    answer = model(input_ids=ids, **wanted, **forward_kwargs(model))
    if not isinstance(answer, Mapping):
        return {"sentence_embedding": answer[0] if isinstance(answer, (tuple, list)) else answer}
    inside = {
        role: answer[role]
        for role in ("hidden_states", "attentions")
        if answer.get(role) is not None
    }
    if answer.get("sentence_embedding") is not None:
        return {"sentence_embedding": answer["sentence_embedding"], **inside}
    states = (
        answer["last_hidden_state"]
        if "last_hidden_state" in answer
        else answer["hidden_states"][-1]
    )
    there = torch.ones_like(ids) if mask is None else mask
    weight = there[..., None].to(states.dtype)
    return {"sentence_embedding": (states * weight).sum(1) / weight.sum(1).clamp_min(1), **inside}


class SentenceEmbedding(Task):
    """What the loop and the command line ask of the task.

    A sample is a pair of texts that belong together; ``label`` (N,), -100 for a pair that is not judged, says what it is about.
    """

    card = Card(
        "Sentence embeddings",
        "https://arxiv.org/abs/1908.10084",
        "EMNLP",
        2019,
        tasks=("sentence_embedding",),
    )
    title = "sentence embedding"
    names = ("input_ids", "attention_mask", "partner_input_ids", "partner_attention_mask", "label")
    inputs = ("input_ids", "attention_mask", "partner_input_ids", "partner_attention_mask")
    roles = ("sentence_embedding", "partner_embedding")
    label_objectives = ("contrastive",)
    headline = "recall"
    exports = False
    baselines: ClassVar = {"single": ("alone",)}
    call = staticmethod(call)

    def check(self, objectives: Mapping[str, Objective] | Objectives) -> None:
        """ValueError for an objective that reads ``embedding``, which is what a tap sees of the text that the net read last."""
        for name, objective in objectives.items():
            assert isinstance(objective, Objective)
            if any("embedding" in roles for needs in objective.needs.values() for roles in needs):
                own = f"{type(objective).__name__} reads the embedding of one item, and a sample of {self.title} is two texts"
                raise ValueError(
                    f"objectives.{name}: {own}; take contrastive or embedding_regression"
                )

    def evaluate(
        self, net: nn.Module, batches: Iterable[Any], teacher: nn.Module | None = None
    ) -> Evaluation:
        """Metrics of the cosines between first texts and partners: is the nearest of the other side the own one?

        ``recall`` (at 1) and ``mrr`` (mean reciprocal rank), of both sides; ``accuracy``: of first texts whose nearest partner is about the same.
        With a teacher ``spearman``, the rank correlation of all cosines with the teacher's, and ``agreement`` in the nearest partner. Raises
        ValueError where no pair is labelled or an embedding is not finite.
        """
        kept: dict[str, list[Tensor]] = {}
        for batch, mine, theirs in self.iter_outputs(net, batches, teacher):
            known = batch["label"] != UNLABELLED
            found = {"label": batch["label"], **{role: mine[role] for role in self.roles}}
            found |= {f"teacher {role}": theirs[role] for role in self.roles if role in theirs}
            for key, value in found.items():
                kept.setdefault(key, []).append(value.detach()[known].cpu())
        columns = {key: torch.cat(parts) for key, parts in kept.items()}
        label = columns["label"]
        if not len(label):
            raise ValueError("no pair to evaluate on has a label")
        closeness = _closeness(columns["sentence_embedding"], columns["partner_embedding"])
        ranks = torch.cat([_ranks(closeness), _ranks(closeness.T)])
        metrics = {
            "recall": (ranks == 1).double().mean().item(),
            "mrr": (1 / ranks.double()).mean().item(),
            "accuracy": (label[closeness.argmax(1)] == label).double().mean().item(),
        }
        if "teacher sentence_embedding" in columns:
            metrics |= _beside(
                closeness,
                _closeness(
                    columns["teacher sentence_embedding"], columns["teacher partner_embedding"]
                ),
            )
        return metrics, {}


def _closeness(first: Tensor, partner: Tensor) -> Tensor:
    """The cosines (N, N) of every first text with every partner."""
    for side in (first, partner):
        if not side.isfinite().all():
            raise ValueError(
                f"{int((~side.isfinite()).any(-1).sum())} of {len(side)} texts have embeddings that are not finite"
            )
    return F.normalize(to_float32(first), dim=-1) @ F.normalize(to_float32(partner), dim=-1).T


def _ranks(closeness: Tensor) -> Tensor:
    """Of each row, the rank of its own partner, 1 for the nearest."""
    return 1 + (closeness > closeness.diagonal()[:, None]).sum(1)


def _beside(mine: Tensor, theirs: Tensor) -> dict[str, float]:
    from torchmetrics.functional.regression import spearman_corrcoef

    found = {"agreement": (mine.argmax(1) == theirs.argmax(1)).double().mean().item()}
    return found | (
        {"spearman": spearman_corrcoef(mine.flatten(), theirs.flatten()).item()}
        if mine.numel() > 1
        else {}
    )
