"""Alignment of images and texts in one embedding space."""

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

TRANSFORMERS_ROLES = {"image_embeds": "image_embedding", "text_embeds": "text_embedding"}
"""Names of the embeddings in transformers, each with its role."""


def call(
    model: nn.Module,
    batch: Batch,
    size: int | tuple[int, int] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Outputs:
    """Compute the outputs of an image-text model, which is called like CLIP of transformers.

    Args:
        model: a model that maps ``pixel_values`` and ``input_ids`` to two embeddings.
        batch: ``image`` (N, C, H, W) in [0, 1], ``input_ids`` and optionally ``attention_mask``
            (N, L); images are resized and normalised for this model.
        size: side, or height and width, of the model's images; None for no resizing.
        mean: mean of each channel.
        std: standard deviation of each channel.

    Returns:
        ``image_embedding`` and ``text_embedding`` (N, D), of length 1 only if the model normalises
        them, and ``logit_scale`` (1,), exponentiated.
    """
    image = preprocess(batch["image"], size, mean, std)
    mask = {"attention_mask": batch["attention_mask"]} if "attention_mask" in batch else {}
    result: Mapping[str, Any] = model(input_ids=batch["input_ids"], pixel_values=image, **mask)
    outputs = {
        TRANSFORMERS_ROLES.get(role, role): result[role]
        for role in ("image_embedding", "text_embedding", *TRANSFORMERS_ROLES)
        if result.get(role) is not None
    }
    scale = result.get("logit_scale")
    if scale is None:
        # Models of transformers have the logarithm of the scale as a parameter.
        scale = model.get_parameter("logit_scale").exp()
    return outputs | {"logit_scale": scale.reshape(1)}


class ImageText(Task):
    """Alignment of images and texts.

    A batch has pairs of ``image`` (N, C, H, W) and ``input_ids``, ``attention_mask`` (N, L).
    ``label`` (N,) is the class of the image for the zero-shot accuracy, -100 for none.

    Args:
        kind: kind of the labels: ``single``.
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
        """Compute metrics and details of an image-text model in eval mode.

        Metrics:

        - ``accuracy`` of the zero-shot class, see ``zero_shot``;
        - ``image_recall``: share of the texts whose closest image has the same text;
        - ``text_recall``: share of the images whose closest text is their own (recall at 1);
        - ``agreement`` with the teacher in the zero-shot class.

        Details: ``confusion`` of the zero-shot classes.

        Args:
            net: network to evaluate.
            batches: batches of the test data.
            teacher: teacher for ``agreement``, if there is one.

        Raises:
            ValueError: if no image is labelled, or an embedding is not finite.
        """
        columns = self._collect(net, batches, teacher)
        label = columns["label"]
        image = _normalized(columns["image_embedding"])
        text = _normalized(columns["text_embedding"])
        is_labelled = label != UNLABELLED
        if not is_labelled.any():
            raise ValueError("no image to evaluate on has a label")
        predicted = zero_shot(image, text, label)
        text_index = _text_indices(columns["ids"])
        similarity = image @ text.T
        image_hits = text_index[similarity.argmax(0)] == text_index
        text_hits = text_index[similarity.argmax(1)] == text_index
        metrics = {
            "accuracy": (predicted == label)[is_labelled].double().mean().item(),
            "image_recall": image_hits.double().mean().item(),
            "text_recall": text_hits.double().mean().item(),
        }
        if "teacher image_embedding" in columns:
            teacher_image = _normalized(columns["teacher image_embedding"])
            teacher_text = _normalized(columns["teacher text_embedding"])
            teacher_class = zero_shot(teacher_image, teacher_text, label)
            metrics["agreement"] = (predicted == teacher_class).double().mean().item()
        return metrics, _details(predicted[is_labelled], label[is_labelled])

    def _collect(
        self, net: nn.Module, batches: Iterable[Any], teacher: nn.Module | None
    ) -> dict[str, Tensor]:
        """Labels, token ids and embeddings of all batches."""
        collected: dict[str, list[Tensor]] = {}
        for batch, outputs, teacher_outputs in self.iter_outputs(net, batches, teacher):
            parts = {"label": batch["label"], "ids": batch["input_ids"]}
            for role in self.roles:
                parts[role] = outputs[role]
                if role in teacher_outputs:
                    parts[f"teacher {role}"] = teacher_outputs[role]
            for key, value in parts.items():
                collected.setdefault(key, []).append(value.detach().cpu())
        return {key: torch.cat(parts) for key, parts in collected.items()}


def zero_shot(image: Tensor, text: Tensor, label: Tensor) -> Tensor:
    """Return the class whose mean text embedding is closest to each image.

    The mean over the texts of a class is the prompt ensemble of Radford et al. 2021, section 3.1.4.

    Args:
        image: (N, D), of length 1.
        text: (N, D), of length 1.
        label: (N,), the class of each text; -100 for none.

    Returns:
        Class indices (N,); only classes with a text are predicted.
    """
    is_labelled = label != UNLABELLED
    classes = int(label.max()) + 1
    sums = torch.zeros(classes, text.shape[1], dtype=text.dtype)
    sums.index_add_(0, label[is_labelled], text[is_labelled])
    has_text = torch.bincount(label[is_labelled], minlength=classes) > 0
    similarity = image @ F.normalize(sums, dim=1).T
    return similarity.masked_fill(~has_text, -torch.inf).argmax(1)


def _normalized(embedding: Tensor) -> Tensor:
    is_finite = embedding.isfinite().all(-1)
    if not is_finite.all():
        raise ValueError(
            f"{int((~is_finite).sum())} of {len(embedding)} items have embeddings that are not "
            "finite"
        )
    return F.normalize(to_float32(embedding), dim=-1)


def _text_indices(ids: Tensor) -> Tensor:
    """Index of each text among the distinct texts."""
    indices: dict[tuple[int, ...], int] = {}
    return torch.tensor([indices.setdefault(tuple(row), len(indices)) for row in ids.tolist()])


def _details(predicted: Tensor, label: Tensor) -> dict[str, Any]:
    from torchmetrics.functional.classification import multiclass_confusion_matrix

    classes = int(torch.stack([predicted, label]).max()) + 1
    if not 1 < classes <= LARGEST_CONFUSION:
        return {}
    return {"confusion": multiclass_confusion_matrix(predicted, label, classes).tolist()}
