"""CIRKD memory: relations of pixels to stored teacher pixels and regions of all classes."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge
from torch import Tensor, nn
from typing_extensions import Doc

from instil.cards import check_bounds
from instil.core import UNLABELLED, Batch, Card, NonNegative, Outputs, Positive, to_float32
from instil.functional.class_pixels import (
    class_regions,
    labelled_images,
    pixel_labels,
    sample_class_pixels,
)
from instil.functional.directions import l2_normalize, pairwise_dot
from instil.functional.divergences import softened_kl
from instil.functional.feature_maps import (
    as_map,
    downsample_labels,
    flatten_spatial,
    resize_to_common,
)
from instil.functional.keyed_random import keyed_uniform
from instil.functional.logits import apply_reduction
from instil.functional.pairs import Pairs, feature_levels
from instil.items import Items
from instil.modules.adapters import match_dtype
from instil.modules.class_memory import class_queues, draw_class_rows
from instil.modules.connectors import checked_norm, convolutions
from instil.modules.memory import Queue
from instil.objectives.bases.feature_objective import FeatureObjective

MAX_PIXELS_PER_IMAGE = 16
"""Maximum number of pixels of a class that are stored from one image."""


@check_bounds
def cirkd_memory_loss(
    student_embedding: Tensor,
    teacher_embedding: Tensor,
    memory: Tensor,
    temperature: Positive = 0.1,
    kd_temperature: Positive = 1.0,
    reduction: str = "mean",
) -> Tensor:
    """KL divergence of the similarities with stored embeddings (Yang et al. 2022).

    Softmax of inner products over ``temperature * kd_temperature``. The divergence is multiplied
    by ``kd_temperature ** 2``.

    Args:
        student_embedding: unit vectors (..., D).
        teacher_embedding: unit vectors (..., D).
        memory: unit vectors (M, D).
        temperature: divisor of the inner products, > 0.
        kd_temperature: softmax temperature, > 0.
        reduction: ``"mean"`` or ``"none"`` (one value per embedding).

    Returns:
        Scalar, or (...) for ``reduction="none"``.

    Example:
        >>> import torch
        >>> cirkd_memory_loss(torch.eye(2).flip(0), torch.eye(2), torch.eye(2), temperature=1.0)
        tensor(0.4621)
    """
    # The division is applied to the embeddings, which are fewer than their products.
    divided = (
        to_float32(embedding) / (temperature * kd_temperature)
        for embedding in (student_embedding, teacher_embedding)
    )
    student_scores, teacher_scores = (pairwise_dot(side, memory.to(side.dtype)) for side in divided)
    values = softened_kl(student_scores, teacher_scores) * kd_temperature**2
    return apply_reduction(values, reduction)


class CIRKDMemory(FeatureObjective):
    """CIRKD's memory part: similarities of labelled pixels with stored teacher pixels and regions.

    The stored vectors come from earlier images and all classes. A region is the mean direction of
    the pixels of a class in an image. The student's map goes through a learned projector. The
    batch needs ``index`` and a label for every pixel. The number of classes is that of the
    student's logits.
    """

    items = Items(per_sample=True, labelled=True)
    card = Card(
        "Cross-Image Relational Knowledge Distillation for Semantic Segmentation",
        "https://arxiv.org/abs/2204.06986",
        "CVPR",
        2022,
        source="relations",
        algorithms=("contrastive",),
        tasks=("segmentation",),
        labels=("single",),
        zero_at_match=False,
        published_weight=0.1,
        weight_setting="the authors' code, Cityscapes, with kd of weight 1",
        deviations="The memory stores a step's embeddings after the step, in the code before it. "
        "Stored pixels belong to their class; the code draws them from the whole image. Each "
        "image's mean has the same weight. By default the projector normalises each sample.",
        equation=r"\frac{T^2}{|P|} \sum_{a \in P} \sum_{m} \lambda_m \mathrm{KL}\left( "
        r"\mathrm{softmax}\left(\tfrac{Q_m f^t_a}{\tau T}\right) \Vert "
        r"\mathrm{softmax}\left(\tfrac{Q_m g(f^s_a)}{\tau T}\right) \right), \quad m \in \lbrace "
        r"\mathrm{pixel}, \mathrm{region} \rbrace",
        use="For semantic segmentation when a batch holds too few images to show all classes: "
        "pixels are compared with stored pixels of every class. Combine it with cirkd_minibatch "
        "and kd. A projector of two 1x1 convolutions is learned. The memory holds, per class, "
        "pixel_memory + region_memory vectors of the teacher's width.",
        pitfalls="The memory starts random, so the first steps compare with noise until every "
        "class has occurred. At a match the loss is the effect of the projector.",
    )
    needs: ClassVar = {"student": (("features",), ("logits",)), "teacher": (("features",),)}
    deepest = True

    def __init__(
        self,
        temperature: Annotated[Positive, Doc("divisor of the similarities")] = 0.1,
        kd_temperature: Annotated[
            Positive, Doc("softmax temperature of the scaled similarities")
        ] = 1.0,
        pixel: Annotated[NonNegative, Doc("weight of the relations to pixels")] = 1.0,
        region: Annotated[NonNegative, Doc("weight of the relations to regions")] = 1.0,
        contrast_pixels: Annotated[
            int, Ge(1), Doc("number of stored pixels compared per step, of all classes together")
        ] = 4096,
        contrast_regions: Annotated[
            int, Ge(1), Doc("number of stored regions compared per step, of all classes together")
        ] = 1024,
        pixel_memory: Annotated[int, Ge(1), Doc("number of stored pixels per class")] = 20000,
        region_memory: Annotated[int, Ge(1), Doc("number of stored regions per class")] = 2000,
        norm: Annotated[
            Literal["group", "batch"],
            Doc(
                "normalisation in the projector; group: of each sample; "
                "batch: the authors' BatchNorm, which couples the samples"
            ),
        ] = "group",
        pairs: Annotated[
            Pairs, Doc("[[student level, teacher level], ...]; auto: the deepest pair")
        ] = "auto",
    ):
        super().__init__(pairs)
        self.norm = norm
        self.connector_norm = checked_norm(norm)
        self.temperature = temperature
        self.kd_temperature = kd_temperature
        self.pixel = pixel
        self.region = region
        self.contrast_pixels = contrast_pixels
        self.contrast_regions = contrast_regions
        self.pixel_memory = pixel_memory
        self.region_memory = region_memory

    def build(self, student: Outputs, teacher: Outputs) -> None:
        """Build a projector and two class-wise queues for each pair of levels."""
        super().build(student, teacher)
        num_classes = student["logits"].shape[-1]
        levels = [feature_levels(teacher)[j] for _, j in self.matched]
        self.pixels_kept = class_queues(levels, num_classes, self.pixel_memory)
        self.regions_kept = class_queues(levels, num_classes, self.region_memory)

    def connect(self, student: Tensor, teacher: Tensor) -> tuple[nn.Module, str]:
        source, target = as_map(student).shape[1], as_map(teacher).shape[1]
        projector = convolutions([source, target, target], [1, 1], self.norm, "plain")
        return projector.to(student.device, to_float32(student).dtype), "two 1x1 convolutions"

    def weight(self, batch: Batch) -> Tensor:
        return labelled_images(pixel_labels(batch, self))

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        student_levels, teacher_levels = feature_levels(student), feature_levels(teacher)
        label = pixel_labels(batch, self)
        total = torch.zeros(len(label), device=label.device)
        for index, (i, j) in enumerate(self.matched):
            student_map, teacher_map = resize_to_common(student_levels[i], teacher_levels[j])
            # Only labelled pixels are selected, because each is compared with thousands of rows.
            counted = downsample_labels(label, teacher_map.shape[2:]) != UNLABELLED
            projector = self.adapters[index]
            projected = projector(match_dtype(projector, student_map))
            student_pixels = l2_normalize(flatten_spatial(projected))[counted]
            teacher_pixels = l2_normalize(flatten_spatial(teacher_map))[counted]
            for weight, queues, contrast in (
                (self.pixel, self.pixels_kept, self.contrast_pixels),
                (self.region, self.regions_kept, self.contrast_regions),
            ):
                queue = queues[index]
                assert isinstance(queue, Queue)
                rows = draw_class_rows(queue, contrast, batch, f"{self.stream}.contrast")
                values = cirkd_memory_loss(
                    student_pixels,
                    teacher_pixels,
                    queue["teacher"][rows],
                    self.temperature,
                    self.kd_temperature,
                    reduction="none",
                )
                per_pixel = values.new_zeros(counted.shape).masked_scatter(counted, values)
                total = total + weight * per_pixel.sum(1) / counted.sum(1).clamp_min(1)
        return self.reduce_if_coupled(total)

    def state_updates(self, student: Outputs, teacher: Outputs, batch: Batch) -> dict[str, Tensor]:
        """Regions and sampled pixels of each image and class, with masks of those that exist.

        The pixels are drawn by (seed, step, index).

        Raises:
            ValueError: if the batch has no ``index``.
        """
        if "index" not in batch:
            raise ValueError(
                "index: cirkd_memory stores the image of each pixel, so it needs 'index' in the "
                f"batch, which has {', '.join(batch)}."
            )
        label = pixel_labels(batch, self)
        updates = {"index": batch["index"]}
        classes = torch.arange(student["logits"].shape[-1], device=label.device)
        for level, (i, j) in enumerate(self.matched):
            levels = feature_levels(student)[i], feature_levels(teacher)[j]
            teacher_map = resize_to_common(*levels)[1]
            vectors = l2_normalize(flatten_spatial(teacher_map))
            grid_label = downsample_labels(label, teacher_map.shape[2:])
            in_class = grid_label[:, None] == classes[:, None]
            draws = keyed_uniform(batch, vectors.shape[1], f"{self.stream}.pixels")
            chosen = sample_class_pixels(vectors, in_class, draws, MAX_PIXELS_PER_IMAGE)
            pixels, pixels_exist = chosen
            regions, regions_exist = class_regions(vectors, in_class)
            updates[f"pixel{level}"] = pixels
            updates[f"pixel{level}_exists"] = pixels_exist
            updates[f"region{level}"] = regions[:, :, None]
            updates[f"region{level}_exists"] = regions_exist[:, :, None]
        return updates

    def after_step(self, gathered_rows: dict[str, Tensor]) -> None:
        """Push the step's pixels and regions to the queues of their classes."""
        for level in range(len(self.matched) if gathered_rows else 0):
            for name, queue in (
                (f"pixel{level}", self.pixels_kept[level]),
                (f"region{level}", self.regions_kept[level]),
            ):
                assert isinstance(queue, Queue)
                exists = gathered_rows[f"{name}_exists"]
                image, class_index, _ = exists.nonzero(as_tuple=True)
                rows = {"teacher": gathered_rows[name][exists]}
                queue.push(gathered_rows["index"][image], rows, class_index)
