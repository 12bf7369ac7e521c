"""Loss that a model computes itself, such as that of a detector or of a transformers model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge
from torch import Tensor
from typing_extensions import Doc

from instil.core import UNLABELLED, Batch, Card, Objective, Outputs, to_float32
from instil.items import Items

Factor = Annotated[float, Ge(0)]


def own_loss(loss: Tensor | Mapping[str, Tensor], weights: Mapping[str, float] | None) -> Tensor:
    """Weighted sum of the losses that a model returns.

    Args:
        loss: a scalar, the mean over the items of the batch; or (N,), one loss per sample; or
            several of them by name.
        weights: factor of each loss by name; 1 for a name that is left out. None: all are 1.

    Returns:
        A scalar or (N,), in float32 or better.

    Raises:
        ValueError: if a name is unknown, a loss is not a tensor, or there is none.

    Example:
        >>> import torch
        >>> losses = {"box": torch.tensor(1.0), "class": torch.tensor(3.0)}
        >>> own_loss(losses, {"box": 0.5})
        tensor(3.5000)
    """
    losses = dict(loss) if isinstance(loss, Mapping) else {"loss": loss}
    if unknown := sorted(set(weights or ()) - set(losses)):
        raise ValueError(
            f"weights.{unknown[0]}: the model has no such loss. Expected one of "
            f"{', '.join(losses)}."
        )
    parts: list[Tensor] = []
    for name, value in losses.items():
        if not isinstance(value, Tensor):
            raise ValueError(
                f"loss '{name}': Expected a tensor, got {type(value).__name__}. Does the model "
                "receive the labels?"
            )
        factor = (weights or {}).get(name, 1.0)
        parts.append(to_float32(value) * factor)
    if not parts:
        raise ValueError("loss: Expected at least one loss, got an empty dict.")
    return torch.stack(parts).sum(0)


def check_boxes_known(batch: Batch) -> None:
    """Check that a detector gets all objects of each image, as it learns the rest as background.

    Args:
        batch: any batch; one with ``box`` (N, K, 4) is checked.

    Raises:
        ValueError: for an image whose boxes are hidden (``num_boxes`` -100), and for a box without
            a class.
    """
    label, box = batch.get("label"), batch.get("box")
    if not (isinstance(label, Tensor) and isinstance(box, Tensor)):
        return
    if label.ndim != 2 or box.shape != (*label.shape, 4):
        return
    # Unused rows have -100 or zeros in place of a box, and so no area.
    rows = (box[..., 2:] > box[..., :2]).all(-1) & (label == UNLABELLED)
    if rows.any():
        raise ValueError(
            f"own_loss: a box of image {int(rows.nonzero()[0, 0])} has the class {UNLABELLED}. The "
            "detector would learn its object as background. Expected a class for each box, and "
            f"{UNLABELLED} in unused rows of label and box. Leave the image or the box out"
        )
    hidden = batch.get("num_boxes", label.new_zeros(0)) == UNLABELLED
    if hidden.any():
        raise ValueError(
            f"own_loss: the boxes of image {int(hidden.nonzero()[0, 0])} are hidden (num_boxes "
            f"{UNLABELLED}), and the detector would learn its objects as background. Expected the "
            "boxes of all images. Leave the image out, or train on such images without own_loss"
        )


class OwnLoss(Objective):
    """Loss that the student computes itself, read as the role ``loss``.

    ``loss`` is a scalar, the mean over the items of the batch; or (N,), one loss per sample; or a
    dict of them, which are added. The call of the student must pass the labels to the model.
    """

    items = Items(per_sample=True)
    returns_mean = True
    card = Card(
        "Loss of the model itself",
        source="labels",
        zero_at_match=False,
        equation=r"\sum_k w_k \, \ell_k(x, y)",
        use="The label loss of models that assign targets inside: detectors of torchvision, "
        "encoder-decoder and detection models of transformers, or an auxiliary loss such as the "
        "load balance of experts. Combine it with any distillation loss.",
        pitfalls="A scalar must be the mean over the items: with accumulation and on several "
        "processes the parts of the batch are weighted by their number of items. Set count to "
        "labels if the model divides by the number of labels, as for tokens. The model must ignore "
        "items that are not valid, and one without labels must return 0 or a finite value. A "
        "scalar has no sample weights. A loss that exists in train mode only is checked at the "
        "first step, not before.",
    )
    needs: ClassVar = {"student": (("loss",),), "teacher": ()}

    def __init__(
        self,
        weights: Annotated[
            dict[str, Factor] | None,
            Doc("factor of each loss in a dict, by name; 1 for a name that is left out"),
        ] = None,
        count: Annotated[
            Literal["samples", "labels"],
            Doc(
                "items that a loss is the mean of: samples, or the labels of the batch that are "
                "not -100, such as tokens"
            ),
        ] = "samples",
    ) -> None:
        super().__init__()
        if count not in ("samples", "labels"):
            raise ValueError(f"count: Expected samples or labels, got '{count}'.")
        self.weights = weights
        self.count = count

    def resolve(
        self, student: Iterable[str], teacher: Iterable[str], remedy: str | None = None
    ) -> None:
        """Read the role ``loss``; a model in eval mode, as in a dry run, may not return it."""

    def item_mask(self, batch: Batch) -> Tensor | None:
        """None: the model decides which items count."""
        return None

    def weight(self, batch: Batch) -> Tensor:
        """Weight of each sample: 1, or its number of labels, for a valid sample; else 0."""
        weight = super().weight(batch)
        if self.count == "samples":
            return weight
        if "label" not in batch:
            raise ValueError(
                "count: labels needs 'label' in the batch. Expected a batch with labels, got "
                f"{', '.join(batch)}. Set count to samples."
            )
        label: Tensor = batch["label"]
        return weight * (label != UNLABELLED).reshape(len(label), -1).sum(1)

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        if student.get("loss") is None:
            raise ValueError(
                "OwnLoss: the student returns no loss. Expected the role 'loss', got "
                f"{', '.join(map(str, student)) or 'nothing'}. Pass the labels to the model in the "
                "call of the student."
            )
        check_boxes_known(batch)
        values = own_loss(student["loss"], self.weights)
        self._check_shape(values, batch)
        if values.ndim == 0:
            # A process that has run out of data repeats a batch in which no item counts.
            return torch.where(self.num_items(batch) > 0, values, 0.0)
        return values

    def _check_shape(self, values: Tensor, batch: Batch) -> None:
        if values.ndim == 0 and self.sample_weight is not None:
            raise ValueError(
                "sample_weight: the student returns one loss for the batch. Expected one per "
                "sample (N,). Leave out sample_weight."
            )
        if values.ndim and values.shape != self.weight(batch).shape:
            raise ValueError(
                f"OwnLoss: Expected a scalar or one loss per sample (N,), got "
                f"{tuple(values.shape)}."
            )
