"""Images and texts in one space, so that each is found by the other."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from instil.core import UNLABELLED, Batch, Card, Outputs, to_float32
from instil.tasks.bases.scores import LARGEST_CONFUSION
from instil.tasks.bases.task import Evaluation, Task
from instil.tasks.classification import preprocess

THEIRS = {"image_embeds": "image_embedding", "text_embeds": "text_embedding"}
"""What transformers calls the embeddings."""


def call(
    model: nn.Module,
    batch: Batch,
    size: int | tuple[int, int] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Outputs:
    """``image_embedding``, ``text_embedding`` (N, D) and ``logit_scale`` (1,), exponentiated, of ``image``, ``input_ids`` and ``attention_mask``.

    The model is called as CLIP of transformers is; images are resized and normalised as it expects them. The embeddings are as the model gives
    them, of length 1 or not.
    """
    image = preprocess(batch["image"], size, mean, std)
    wanted = {"attention_mask": batch["attention_mask"]} if "attention_mask" in batch else {}
    answer: Mapping[str, Any] = model(input_ids=batch["input_ids"], pixel_values=image, **wanted)
    outputs = {
        THEIRS.get(role, role): answer[role]
        for role in ("image_embedding", "text_embedding", *THEIRS)
        if answer.get(role) is not None
    }
    scale = answer.get("logit_scale")
    if scale is None:  # transformers keeps its logarithm in the model
        scale = model.get_parameter("logit_scale").exp()
    return outputs | {"logit_scale": scale.reshape(1)}


class ImageText(Task):
    """What the loop and the command line ask of the task.

    A batch has pairs ``image`` (N, C, H, W) and ``input_ids``, ``attention_mask`` (N, L); ``label`` (N,), -100 for none, is the class in the image,
    for zero-shot accuracy.
    """

    card = Card(
        "Image-text alignment",
        "https://arxiv.org/abs/2103.00020",
        "ICML",
        2021,
        tasks=("image_text",),
    )
    title = "image-text alignment"
    names = ("image", "input_ids", "attention_mask", "label")
    inputs = ("image", "input_ids")
    roles = ("image_embedding", "text_embedding")
    label_objectives = ("contrastive",)
    exports = False
    call = staticmethod(call)

    def evaluate(
        self, net: nn.Module, batches: Iterable[Any], teacher: nn.Module | None = None
    ) -> Evaluation:
        """``accuracy`` (zero-shot), ``image_recall`` and ``text_recall``, and ``agreement`` with the teacher in the zero-shot class.

        Zero-shot: the class whose mean caption embedding is closest to the image's (a prompt ensemble; Radford et al. 2021, section 3.1.4).
        ``image_recall``: the share of texts whose closest image has the same text; ``text_recall``: of images whose closest text is their own
        (recall at 1). Details: ``confusion`` of the zero-shot classes. Raises ValueError where nothing is labelled or not finite.
        """
        kept: dict[str, list[Tensor]] = {}
        for batch, mine, theirs in self.iter_outputs(net, batches, teacher):
            found = {
                "label": batch["label"],
                "ids": batch["input_ids"],
                **{role: mine[role] for role in self.roles},
            }
            found |= {f"teacher {role}": theirs[role] for role in self.roles if role in theirs}
            for key, value in found.items():
                kept.setdefault(key, []).append(value.detach().cpu())
        columns = {key: torch.cat(parts) for key, parts in kept.items()}
        label, image, text = (
            columns["label"],
            _unit(columns["image_embedding"]),
            _unit(columns["text_embedding"]),
        )
        known = label != UNLABELLED
        if not known.any():
            raise ValueError("no image to evaluate on has a label")
        decided, same = zero_shot(image, text, label), _numbered(columns["ids"])
        closeness = image @ text.T
        metrics = {
            "accuracy": (decided == label)[known].double().mean().item(),
            "image_recall": (same[closeness.argmax(0)] == same).double().mean().item(),
            "text_recall": (same[closeness.argmax(1)] == same).double().mean().item(),
        }
        if "teacher image_embedding" in columns:
            others = zero_shot(
                _unit(columns["teacher image_embedding"]),
                _unit(columns["teacher text_embedding"]),
                label,
            )
            metrics["agreement"] = (decided == others).double().mean().item()
        return metrics, _details(decided[known], label[known])


def zero_shot(image: Tensor, text: Tensor, label: Tensor) -> Tensor:
    """The class of each image: that of the closest mean of the texts of a class; embeddings (N, D) of length 1, labels (N,), -100 for none."""
    known = label != UNLABELLED
    count = int(label.max()) + 1
    sums = torch.zeros(count, text.shape[1], dtype=text.dtype).index_add_(
        0, label[known], text[known]
    )
    there = torch.bincount(label[known], minlength=count) > 0
    return (image @ F.normalize(sums, dim=1).T).masked_fill(~there, -torch.inf).argmax(1)


def _unit(embedding: Tensor) -> Tensor:
    if not embedding.isfinite().all():
        raise ValueError(
            f"{int((~embedding.isfinite()).any(-1).sum())} of {len(embedding)} items have embeddings that are not finite"
        )
    return F.normalize(to_float32(embedding), dim=-1)


def _numbered(ids: Tensor) -> Tensor:
    """The number of each text, the same for texts that are the same."""
    numbers: dict[tuple[int, ...], int] = {}
    return torch.tensor([numbers.setdefault(tuple(row), len(numbers)) for row in ids.tolist()])


def _details(decided: Tensor, label: Tensor) -> dict[str, Any]:
    from torchmetrics.functional.classification import multiclass_confusion_matrix

    classes = int(torch.stack([decided, label]).max()) + 1
    return (
        {"confusion": multiclass_confusion_matrix(decided, label, classes).tolist()}
        if 1 < classes <= LARGEST_CONFUSION
        else {}
    )
