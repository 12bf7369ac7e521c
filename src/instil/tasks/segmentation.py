"""Semantic segmentation: one class per pixel."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from instil.core import UNLABELLED, Batch, Card, Outputs, to_float32
from instil.tasks.bases.pixel_task import PixelTask
from instil.tasks.bases.segmenter_call import resized_logits, segmenter_outputs
from instil.tasks.bases.task import Evaluation
from instil.tasks.classification import preprocess


def call(
    model: nn.Module,
    batch: Batch,
    size: int | tuple[int, int] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    pass_labels: bool = False,
) -> Outputs:
    """Compute the logits of each pixel.

    Args:
        model: a model that returns logits (N, C, h, w), as a tensor, as ``out`` (torchvision) or as
            ``logits`` (transformers); or masks and classes of queries, such as Mask2Former. They
            are resized to the image (bilinear).
        batch: ``image`` (N, C, H, W) in [0, 1]; it is resized and normalised for this model.
        size: side, or height and width, of the model's images; None for no resizing.
        mean: mean of each channel.
        std: standard deviation of each channel.
        pass_labels: whether a model that computes its loss itself receives the labels in train
            mode.

    Returns:
        ``logits`` (N, H, W, C), and ``loss`` of a model that receives labels.
    """
    image: Tensor = batch["image"]
    outputs = segmenter_outputs(model, batch, preprocess(image, size, mean, std), pass_labels)
    height, width = image.shape[-2:]
    return outputs | {"logits": resized_logits(outputs["logits"], height, width)}


class Segmentation(PixelTask):
    """Semantic segmentation.

    Labels are int64 (N, H, W), -100 for no label. ``valid`` (N, H, W) is False for void pixels,
    which no loss reads.

    Args:
        kind: kind of the labels: ``single``.
    """

    card = Card("Semantic segmentation", tasks=("segmentation",))
    title = "segmentation"
    headline = "miou"
    baselines: ClassVar = {"single": ("alone", "pseudo_labels")}
    call = staticmethod(call)
    label_hint = "If 255 marks void pixels, add a boolean 'valid' (N, H, W) that is False there"

    def decisions(self, outputs: Outputs) -> Outputs:
        """Return ``prediction`` (N, H, W), the most likely class of each pixel.

        One byte per pixel replaces four for each class; more than 256 classes need four.
        """
        logits = outputs["logits"]
        # uint8 has the classes 0 to 255.
        dtype = torch.uint8 if logits.shape[-1] <= 256 else torch.int32
        return {"prediction": logits.argmax(-1).to(dtype)}

    def evaluate(
        self, net: nn.Module, batches: Iterable[Any], teacher: nn.Module | None = None
    ) -> Evaluation:
        """Compute metrics and details of a segmentation network in eval mode.

        Metrics:

        - ``miou``: intersection over union, averaged over the classes in the data;
        - ``accuracy`` and ``loss`` over the labelled pixels;
        - ``agreement`` with the teacher over the valid pixels.

        Details: ``confusion`` of the pixels (true class x predicted class).

        Args:
            net: network to evaluate.
            batches: batches of the test data.
            teacher: teacher for ``agreement``, if there is one.

        Raises:
            ValueError: if no pixel is labelled, or a logit is not finite.
        """
        from torchmetrics.classification import MulticlassJaccardIndex

        jaccard: MulticlassJaccardIndex | None = None
        loss = 0.0
        num_equal = 0
        num_valid = 0
        for batch, outputs, teacher_outputs in self.iter_outputs(net, batches, teacher):
            logits = _finite_logits(outputs)
            is_valid = batch.get("valid", torch.ones_like(batch["label"], dtype=torch.bool))
            label = batch["label"].masked_fill(~is_valid, UNLABELLED)
            predicted = logits.argmax(-1)
            # The number of classes is known from the first logits only.
            jaccard = jaccard or MulticlassJaccardIndex(logits.shape[-1], ignore_index=UNLABELLED)
            jaccard.update(predicted.cpu(), label.cpu())
            loss += F.cross_entropy(logits.movedim(-1, 1), label, reduction="sum").item()
            if teacher is not None:
                is_equal = (predicted == teacher_outputs["logits"].argmax(-1)) & is_valid
                num_equal += int(is_equal.sum())
                num_valid += int(is_valid.sum())
        confusion = torch.zeros(1, 1) if jaccard is None else jaccard.confmat
        count = int(confusion.sum())
        if jaccard is None or not count:
            raise ValueError("no pixel to evaluate on has a label")
        metrics = {
            "miou": jaccard.compute().item(),
            "accuracy": int(confusion.diag().sum()) / count,
            "loss": loss / count,
        }
        if teacher is not None:
            metrics["agreement"] = num_equal / max(num_valid, 1)
        return metrics, {"confusion": confusion.tolist()}


def _finite_logits(outputs: Outputs) -> Tensor:
    logits = to_float32(outputs["logits"])
    is_finite = logits.isfinite().all(-1)
    if not is_finite.all():
        raise ValueError(
            f"{int((~is_finite).sum())} of {is_finite.numel()} pixels have logits that are not "
            "finite"
        )
    return logits
