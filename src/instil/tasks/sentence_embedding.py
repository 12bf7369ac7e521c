"""Sentence embeddings: texts to vectors that are close for texts that belong together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import chain
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from instil.core import UNLABELLED, Batch, Card, Objective, Objectives, Outputs, to_float32
from instil.networks.sentence_pooling import pooled
from instil.tasks.bases.checks import TEXT_TASKS, check_compares_tokens
from instil.tasks.bases.main_output import main_output
from instil.tasks.bases.task import Evaluation, Task
from instil.tasks.classification import forward_kwargs

SCALE = 20.0
"""Factor of the cosines in a contrast of pairs, as in sentence-transformers."""
TEXTS = ("", "partner_")
"""Prefixes of the batch keys of both texts of a pair."""


def call(model: nn.Module, batch: Batch) -> Outputs:
    """Compute the embeddings of texts and of their partners.

    An embedding is the mean of the last hidden state over the tokens without padding (Reimers &
    Gurevych 2019), unless the model returns ``sentence_embedding`` itself or its files define
    another pooling (``instil.networks.sentence_pooling``).

    Args:
        model: a transformers model, or one that is called like it.
        batch: ``input_ids`` and optionally ``attention_mask`` (N, L); for pairs also
            ``partner_input_ids`` and ``partner_attention_mask``.

    Returns:
        ``sentence_embedding`` and, for pairs, ``partner_embedding`` (N, D); ``logit_scale`` (1,),
        which is 20; ``hidden_states`` and ``attentions`` of the first texts.
    """
    outputs = embed(model, batch["input_ids"], batch.get("attention_mask"))
    if "partner_input_ids" in batch:
        partner = embed(model, batch["partner_input_ids"], batch.get("partner_attention_mask"))
        outputs["partner_embedding"] = partner["sentence_embedding"]
    return outputs | {"logit_scale": outputs["sentence_embedding"].new_full((1,), SCALE)}


def embed(model: nn.Module, ids: Tensor, mask: Tensor | None) -> Outputs:
    """Compute ``sentence_embedding`` (N, D) of texts, and what the model returns of its layers.

    Args:
        model: a transformers model, or one that is called like it.
        ids: tokens (N, L).
        mask: (N, L), 0 for padding; None for no padding.
    """
    masks = {} if mask is None else {"attention_mask": mask}
    result = model(input_ids=ids, **masks, **forward_kwargs(model))
    if not isinstance(result, Mapping):
        return {"sentence_embedding": main_output(result, "sentence_embedding")}
    roles = ("sentence_embedding", "hidden_states", "attentions")
    outputs = {role: result[role] for role in roles if result.get(role) is not None}
    if "sentence_embedding" in outputs:
        return outputs
    if "last_hidden_state" in result:
        states = result["last_hidden_state"]
    else:
        states = result["hidden_states"][-1]
    embedding = pooled(model, states, torch.ones_like(ids) if mask is None else mask)
    return {"sentence_embedding": embedding, **outputs}


class SentenceEmbedding(Task):
    """Sentence embeddings.

    A sample is a pair of texts that belong together. ``label`` (N,) is their topic, -100 for a
    pair that is not evaluated.

    Args:
        kind: kind of the labels: ``single``.
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
    has_open_classes = True
    roles = ("sentence_embedding", "partner_embedding")
    label_objectives = ("contrastive",)
    headline = "recall"
    export_inputs = ("input_ids", "attention_mask")
    export_roles = ("sentence_embedding",)
    baselines: ClassVar = {"single": ("alone",)}
    call = staticmethod(call)

    def check(self, objectives: Mapping[str, Objective] | Objectives) -> None:
        """Raise ValueError for an objective that needs ``embedding``, or compares padded features.

        A tap records that role for one text only: the one that the network read last. An objective
        that also accepts a role of this task in its place is allowed.
        """
        check_compares_tokens(objectives, {"features"}, (*TEXT_TASKS, "sentence_embedding"))
        for name, objective in objectives.items():
            assert isinstance(objective, Objective)
            needs = chain.from_iterable(objective.needs.values())
            if any(_needs_tapped_embedding(roles) for roles in needs):
                raise ValueError(
                    f"objectives.{name}: {type(objective).__name__} reads the embedding of one "
                    f"item, and a sample of {self.title} is two texts; choose contrastive or "
                    "embedding_regression"
                )

    def call_exported(self, graph: Callable[[Batch], Outputs], batch: Batch) -> Outputs:
        """Return the embeddings of both texts, from two passes of an exported encoder."""
        partner = {key: batch[f"partner_{key}"] for key in self.export_inputs}
        return {
            "sentence_embedding": graph(batch)["sentence_embedding"],
            "partner_embedding": graph(partner)["sentence_embedding"],
        }

    def evaluate(
        self, net: nn.Module, batches: Iterable[Any], teacher: nn.Module | None = None
    ) -> Evaluation:
        """Compute metrics of the cosines between texts and partners in eval mode.

        Metrics:

        - ``recall`` (at 1) and ``mrr`` (mean reciprocal rank) of the own partner, averaged over
          both directions; other pairs with an equal text are left out;
        - ``accuracy``: share of the texts whose closest partner has the same label;
        - with a teacher, ``spearman``, the rank correlation of all cosines with the teacher's, and
          ``agreement`` in the closest partner.

        Equal cosines count as a wrong order.

        Args:
            net: network to evaluate.
            batches: batches of the test data.
            teacher: teacher for comparisons, if there is one.

        Raises:
            ValueError: if no pair is labelled, or an embedding is not finite.
        """
        columns = self._collect(net, batches, teacher)
        label = columns["label"]
        if not len(label):
            raise ValueError("no pair to evaluate on has a label")
        cosines = _cosines(columns["sentence_embedding"], columns["partner_embedding"])
        is_other = _is_other(columns)
        ranks = torch.cat([_ranks(cosines, is_other), _ranks(cosines.T, is_other)])
        metrics = {
            "recall": (ranks == 1).double().mean().item(),
            "mrr": (1 / ranks.double()).mean().item(),
            "accuracy": (label[cosines.argmax(1)] == label).double().mean().item(),
        }
        if "teacher sentence_embedding" in columns:
            teacher_cosines = _cosines(
                columns["teacher sentence_embedding"], columns["teacher partner_embedding"]
            )
            metrics |= _teacher_metrics(cosines, teacher_cosines)
        return metrics, {}

    def _collect(
        self, net: nn.Module, batches: Iterable[Any], teacher: nn.Module | None
    ) -> dict[str, Tensor]:
        """Labels, embeddings and numbers of the texts of the labelled pairs of all batches."""
        collected: dict[str, list[Tensor]] = {}
        numbers: dict[tuple[int, ...], int] = {}
        for batch, outputs, teacher_outputs in self.iter_outputs(net, batches, teacher):
            is_labelled = batch["label"] != UNLABELLED
            parts = {"label": batch["label"]}
            for role in self.roles:
                parts[role] = outputs[role]
                if role in teacher_outputs:
                    parts[f"teacher {role}"] = teacher_outputs[role]
            for prefix in TEXTS:
                if f"{prefix}input_ids" in batch:
                    parts[f"{prefix}text"] = _text_numbers(batch, prefix, numbers)
            for key, value in parts.items():
                collected.setdefault(key, []).append(value.detach()[is_labelled].cpu())
        return {key: torch.cat(parts) for key, parts in collected.items()}


def _needs_tapped_embedding(roles: tuple[str, ...]) -> bool:
    """Whether alternative roles, best first, have ``embedding`` before the roles of the task."""
    if "embedding" not in roles:
        return False
    better = roles[: roles.index("embedding")]
    return not set(better) & set(SentenceEmbedding.roles)


def _cosines(sentence: Tensor, partner: Tensor) -> Tensor:
    """Cosines (N, N) of every text with every partner."""
    for embedding in (sentence, partner):
        is_finite = embedding.isfinite().all(-1)
        if not is_finite.all():
            raise ValueError(
                f"{int((~is_finite).sum())} of {len(embedding)} texts have embeddings that are "
                "not finite"
            )
    return F.normalize(to_float32(sentence), dim=-1) @ F.normalize(to_float32(partner), dim=-1).T


def _text_numbers(batch: Batch, prefix: str, numbers: dict[tuple[int, ...], int]) -> Tensor:
    """Number (N,) of each text of a batch; equal texts of all batches have one number."""
    ids: Tensor = batch[f"{prefix}input_ids"]
    mask = batch.get(f"{prefix}attention_mask", torch.ones_like(ids)).bool()
    texts = [tuple(row[is_token].tolist()) for row, is_token in zip(ids, mask, strict=True)]
    return torch.tensor([numbers.setdefault(text, len(numbers)) for text in texts]).to(ids.device)


def _is_other(columns: Mapping[str, Tensor]) -> Tensor:
    """Whether two pairs (N, N) have no text in common."""
    is_other = ~torch.eye(len(columns["label"]), dtype=torch.bool)
    for prefix in TEXTS:
        text = columns.get(f"{prefix}text")
        if text is not None:
            is_other &= text[:, None] != text
    return is_other


def _ranks(cosines: Tensor, is_other: Tensor) -> Tensor:
    """Rank (N,) of the own partner of each row among those of other pairs, 1 for the closest."""
    # Equal cosines are a wrong order: a model with one embedding for all texts finds nothing.
    is_before = (cosines >= cosines.diagonal()[:, None]) & is_other
    return 1 + is_before.sum(1)


def _teacher_metrics(cosines: Tensor, teacher_cosines: Tensor) -> dict[str, float]:
    from torchmetrics.functional.regression import spearman_corrcoef

    is_equal = cosines.argmax(1) == teacher_cosines.argmax(1)
    metrics = {"agreement": is_equal.double().mean().item()}
    # The correlation of one number is undefined.
    if cosines.numel() > 1:
        correlation = spearman_corrcoef(cosines.flatten(), teacher_cosines.flatten())
        metrics["spearman"] = correlation.item()
    return metrics
