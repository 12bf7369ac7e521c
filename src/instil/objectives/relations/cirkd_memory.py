"""Relations to remembered pixels and regions of all classes, told by the teacher that made the memory."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge
from torch import Tensor, nn

from instil.core import (
    UNLABELLED,
    Batch,
    Card,
    NonNegative,
    Outputs,
    Positive,
    keyed_uniform,
    to_float32,
)
from instil.functional.directions import l2_normalize, pairwise_dot
from instil.functional.divergences import softened_kl
from instil.functional.feature_maps import (
    as_map,
    downsample_labels,
    flatten_spatial,
    resize_to_common,
)
from instil.functional.logits import apply_reduction
from instil.functional.pairs import Pairs, feature_levels
from instil.modules.adapters import match_dtype
from instil.modules.connectors import convolutions
from instil.modules.memory import Queue
from instil.objectives.bases.dense_objective import PixelLabelObjective
from instil.objectives.bases.normed_objective import NormedObjective

AN_IMAGE = 16
"""At most so many pixels of a class are remembered of one image."""


def cirkd_memory_loss(
    student: Tensor,
    teacher: Tensor,
    memory: Tensor,
    temperature: float = 0.1,
    kd_temperature: float = 1.0,
    reduction: str = "mean",
) -> Tensor:
    """KL of the similarities with remembered embeddings (M, D), times ``kd_temperature`` squared (Yang et al. 2022).

    Unit embeddings (..., D) give (...) for reduction ``none``; inner products over ``temperature``, their softmax at ``kd_temperature``.
    """
    divided = (
        to_float32(side) / (temperature * kd_temperature) for side in (student, teacher)
    )  # few numbers, their products are many
    mine, theirs = (pairwise_dot(side, memory.to(side.dtype)) for side in divided)
    return apply_reduction(softened_kl(mine, theirs) * kd_temperature**2, reduction)


class CIRKDMemory(PixelLabelObjective, NormedObjective):
    """CIRKD's memory part: each labelled pixel's similarities with the teacher's pixels and regions of all classes, from earlier images.

    The student's map goes through a learned projector. A region is the mean direction of a class's pixels in an image. Needs ``index`` and a
    label for every pixel. Student logits tell how many classes there are.

    ``temperature``: divides the similarities.
    ``kd_temperature``: of the softmax over them.
    ``pixel``: weight of the relations to pixels.
    ``region``: weight of the relations to regions.
    ``contrast_pixels``: remembered pixels that a step compares with, of all classes together.
    ``contrast_regions``: remembered regions that a step compares with.
    ``pixel_memory``: pixels remembered of each class.
    ``region_memory``: regions remembered of each class.
    ``norm``: in the projector; group normalises each sample, batch is the authors' BatchNorm, which couples the samples.
    """

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
        deviations="the memory takes a step's embeddings after it, in the code before; remembered pixels are of their class, the code draws them "
        "from the whole image; each image's mean counts alike; the projector normalises each sample, norm: 'batch' is the code's",
        equation=r"\frac{T^2}{|P|} \sum_{a \in P} \sum_{m} \lambda_m \mathrm{KL}\left( \mathrm{softmax}\left(\tfrac{Q_m f^t_a}{\tau T}\right) \Vert "
        r"\mathrm{softmax}\left(\tfrac{Q_m g(f^s_a)}{\tau T}\right) \right), \quad m \in \lbrace \mathrm{pixel}, \mathrm{region} \rbrace",
        use="For semantic segmentation where a batch holds too few images to show all classes: pixels are compared with remembered ones of "
        "every class. Take it with cirkd_minibatch and kd. A projector of two 1x1 convolutions is learned; the memory holds classes times "
        "the two memory sizes vectors of the teacher's width.",
        pitfalls="The published weights are 0.1 for each part, which is weight: 0.1 here. The memory starts random, so that the first steps "
        "compare with noise until every class has been seen. At a match the loss is what the projector changes.",
    )
    needs: ClassVar = {"student": (("features",), ("logits",)), "teacher": (("features",),)}
    deepest = True

    def __init__(
        self,
        temperature: Positive = 0.1,
        kd_temperature: Positive = 1.0,
        pixel: NonNegative = 1.0,
        region: NonNegative = 1.0,
        contrast_pixels: Annotated[int, Ge(1)] = 4096,
        contrast_regions: Annotated[int, Ge(1)] = 1024,
        pixel_memory: Annotated[int, Ge(1)] = 20000,
        region_memory: Annotated[int, Ge(1)] = 2000,
        norm: Literal["group", "batch"] = "group",
        pairs: Pairs = "auto",
    ):
        super().__init__(norm, pairs)
        self.temperature, self.kd_temperature, self.pixel, self.region = (
            temperature,
            kd_temperature,
            pixel,
            region,
        )
        self.contrast_pixels, self.contrast_regions = contrast_pixels, contrast_regions
        self.pixel_memory, self.region_memory = pixel_memory, region_memory

    def build(self, student: Outputs, teacher: Outputs) -> None:
        """A projector and two class-wise queues for each pair of stages."""
        super().build(student, teacher)
        classes, theirs = (
            student["logits"].shape[-1],
            [as_map(feature_levels(teacher)[j]) for _, j in self.matched],
        )
        queues = [
            nn.ModuleList(
                Queue(
                    classes * size,
                    {"teacher": one.shape[1]},
                    classes,
                    one.device,
                    to_float32(one).dtype,
                )
                for one in theirs
            )
            for size in (self.pixel_memory, self.region_memory)
        ]
        self.pixels_kept, self.regions_kept = queues

    def connect(self, student: Tensor, teacher: Tensor) -> tuple[nn.Module, str]:
        source, target = as_map(student).shape[1], as_map(teacher).shape[1]
        made = convolutions([source, target, target], [1, 1], self.norm, "plain")
        return made.to(student.device, to_float32(student).dtype), "two 1x1 convolutions"

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        mine, theirs, label = feature_levels(student), feature_levels(teacher), self.pixels(batch)
        total = torch.zeros(len(label), device=label.device)
        for number, (i, j) in enumerate(self.matched):
            one, other = resize_to_common(mine[i], theirs[j])
            counted = (
                downsample_labels(label, other.shape[2:]) != UNLABELLED
            )  # only these are compared with thousands
            one = l2_normalize(
                flatten_spatial(self.adapters[number](match_dtype(self.adapters[number], one)))
            )[counted]
            other = l2_normalize(flatten_spatial(other))[counted]
            for weight, queues, contrast in (
                (self.pixel, self.pixels_kept, self.contrast_pixels),
                (self.region, self.regions_kept, self.contrast_regions),
            ):
                queue = queues[number]
                assert isinstance(queue, Queue)
                rows = queue["teacher"][self.draw(queue, contrast, batch)]
                values = cirkd_memory_loss(
                    one, other, rows, self.temperature, self.kd_temperature, reduction="none"
                )
                of_image = values.new_zeros(counted.shape).masked_scatter(counted, values).sum(1)
                total = total + weight * of_image / counted.sum(1).clamp_min(1)
        return self.reduce_if_coupled(total)

    def draw(self, queue: Queue, contrast: int, batch: Batch) -> Tensor:
        """Rows of the memory, the same places of every class, drawn by (seed, step) for the whole batch."""
        places = torch.arange(queue.length, device=queue.owner.device)
        clock = {key: value for key, value in batch.items() if key in ("seed", "step")}
        chosen = keyed_uniform(clock | {"index": places}, 1)[:, 0].argsort()[
            : contrast // queue.groups + 1
        ]
        starts = torch.arange(queue.groups, device=places.device) * queue.length
        return (starts[:, None] + chosen).flatten()

    def state_updates(self, student: Outputs, teacher: Outputs, batch: Batch) -> dict[str, Tensor]:
        """Of each image and class: the region, some pixels drawn by (seed, step, index), and which of them there are."""
        if "index" not in batch:
            raise ValueError(
                f"cirkd_memory remembers whose a pixel is: it needs 'index' in the batch, which has {', '.join(batch)}"
            )
        label, kept = self.pixels(batch), {"index": batch["index"]}
        for number, (i, j) in enumerate(self.matched):
            _, other = resize_to_common(feature_levels(student)[i], feature_levels(teacher)[j])
            vectors, classes = (
                l2_normalize(flatten_spatial(other)),
                torch.arange(student["logits"].shape[-1], device=label.device),
            )
            among = (
                downsample_labels(label, other.shape[2:])[:, None] == classes[:, None]
            )  # (N, K, P)
            draws = torch.where(among, keyed_uniform(batch, vectors.shape[1])[:, None], -1.0)
            order, where = draws.topk(min(AN_IMAGE, vectors.shape[1]), 2)
            kept[f"pixel{number}"] = vectors[
                torch.arange(len(label), device=label.device)[:, None, None], where
            ]
            kept[f"pixel{number}_there"] = order >= 0
            kept[f"region{number}"] = l2_normalize(
                pairwise_dot(among.to(vectors.dtype), vectors.mT)
            )[:, :, None]
            kept[f"region{number}_there"] = among.any(2, keepdim=True)
        return kept

    def after_step(self, gathered_rows: dict[str, Tensor]) -> None:
        """The queues take in the step's pixels and regions, class by class, and forget the oldest."""
        for number in range(len(self.matched) if gathered_rows else 0):
            for name, queue in (
                (f"pixel{number}", self.pixels_kept[number]),
                (f"region{number}", self.regions_kept[number]),
            ):
                assert isinstance(queue, Queue)
                there = gathered_rows[f"{name}_there"]
                of_image, of_class, _ = there.nonzero(as_tuple=True)
                queue.push(
                    gathered_rows["index"][of_image],
                    {"teacher": gathered_rows[name][there]},
                    of_class,
                )
