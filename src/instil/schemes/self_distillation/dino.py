"""DINO: label-free self-distillation between different views of an image."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Annotated

import torch
import torch.nn.functional as F
from annotated_types import Ge, Lt
from torch import Tensor, nn
from typing_extensions import Doc

from instil.core import (
    Batch,
    Card,
    NonNegative,
    Objective,
    Objectives,
    Outputs,
    Scheme,
    Update,
    as_net,
    first_tensor,
    to_float32,
)
from instil.functional.crops import random_crops
from instil.teachers.ema import Ema

GLOBAL_STREAM = "scheme.large_crops"
"""Random stream of the large views."""
LOCAL_STREAM = "scheme.small_crops"
"""Random stream of the small views."""

LocalViews = Annotated[
    int, Ge(0), Doc("number of small views of an image, which only the student sees")
]
GlobalScale = Annotated[float, Ge(0), Lt(1), Doc("smallest share of the image in a large view")]
LocalScale = Annotated[
    float,
    Ge(0),
    Lt(1),
    Doc("smallest share of the image in a small view; the largest is ``global_scale``"),
]
Prototypes = Annotated[int, Ge(1), Doc("number of prototypes, the width of the logits")]
Momentum = Annotated[
    float,
    Ge(0),
    Lt(1),
    Doc("decay of the teacher's moving average at the first step; rises to 1 by a cosine"),
]


class Head(nn.Module):
    """Projection head: embeddings (N, D) to logits (N, prototypes).

    Three layers with a narrow, l2-normalized output, and a linear layer of normalized prototypes.

    Args:
        inputs: size D of the embedding.
        hidden: width of the hidden layers.
        narrow: width of the normalized layer.
        prototypes: number of logits.
    """

    def __init__(self, inputs: int, hidden: int, narrow: int, prototypes: int):
        super().__init__()
        self.body = nn.Sequential(
            nn.Linear(inputs, hidden),
            nn.GELU(),
            nn.Linear(hidden, hidden),
            nn.GELU(),
            nn.Linear(hidden, narrow),
        )
        self.prototypes = nn.Linear(narrow, prototypes, bias=False)

    def forward(self, embedding: Tensor) -> Tensor:
        direction = F.normalize(self.body(embedding), dim=-1)
        return F.linear(direction, F.normalize(self.prototypes.weight, dim=-1))


class DINO(Scheme):
    """Distillation between views of an image, from a moving average (Caron et al. 2021).

    Student and teacher have a projection head on the ``embedding``. The objectives read
    ``view_logits``: the student's (N, 2 + local_views, prototypes) of all views, the teacher's
    (N, 2, prototypes) of the two large ones. The student is exported without its head. Its own
    classifier is not trained: a further stage trains it (``student: previous``).

    Raises:
        ValueError: if the batch has no ``image`` (N, C, H, W), or the student no embedding.
    """

    card = Card(
        "Emerging Properties in Self-Supervised Vision Transformers",
        "https://arxiv.org/abs/2104.14294",
        "ICCV",
        2021,
        source="self",
        algorithms=("contrastive",),
        deviations="All views have the size of the image, so that any network accepts them; the "
        "small views of the paper are smaller. Views are crops with changed contrast and "
        "brightness, without blur, solarization and color jitter. The prototypes learn from the "
        "first step on; the authors' code freezes them for an epoch.",
        equation=r"\sum_{g \in \lbrace 1, 2 \rbrace} \sum_{v \ne g} "
        r"H\left(p^t(x_g), p^s(x_v)\right), \quad "
        r"\theta_t \leftarrow m \theta_t + (1 - m) \theta_s",
        use="For many images with few labels or none. The embedding is learned without labels, and "
        "a linear head from the few labels.",
        pitfalls="The classifier of the exported network is untrained, so its accuracy after this "
        "stage is chance: evaluate it after a stage that trains the head. Crops must keep the "
        "features that distinguish the classes; a small crop of a digit fits any digit. Short runs "
        "need a lower momentum.",
    )

    def __init__(
        self,
        student: nn.Module,
        objectives: Objectives | Mapping[str, Objective],
        local_views: LocalViews = 4,
        global_scale: GlobalScale = 0.4,
        local_scale: LocalScale = 0.05,
        jitter: Annotated[
            NonNegative, Doc("largest relative change of contrast and brightness of a view")
        ] = 0.4,
        flip: Annotated[bool, Doc("mirror half of the views")] = False,
        prototypes: Prototypes = 256,
        hidden: Annotated[int, Ge(1), Doc("width of the hidden layers of the head")] = 256,
        narrow: Annotated[int, Ge(1), Doc("width of the layer before the prototypes")] = 64,
        momentum: Momentum = 0.996,
    ):
        student = as_net(student)
        self.teacher: Ema
        super().__init__(student, Ema(student, momentum), objectives)
        self.local_views = local_views
        self.global_scale = global_scale
        self.local_scale = local_scale
        self.jitter = jitter
        self.flip = flip
        self.momentum = momentum
        self.prototypes = prototypes
        self.hidden = hidden
        self.narrow = narrow
        self.head: Head | None = None
        self.teacher_head: Ema | None = None
        self.learners["student"] += ("head",)

    def build(self, batch: Batch) -> None:
        embedding = _embedding(self.student(batch))
        head = Head(embedding.shape[1], self.hidden, self.narrow, self.prototypes)
        self.head = head.to(embedding.device, to_float32(embedding).dtype)
        # After the move to device and dtype, which the copy takes over.
        self.teacher_head = Ema(self.head, self.momentum)
        self.objectives.build(*self.forward_both(self.before_step(batch)))

    def before_step(self, batch: Batch) -> Batch:
        """Add ``views`` (N, 2 + local_views, C, H, W), the large ones first."""
        if "image" not in batch or batch["image"].ndim != 4:
            raise ValueError(
                "scheme: dino crops images. Expected 'image' (N, C, H, W) in the batch, got "
                f"{', '.join(batch)}. Use a data set of images"
            )
        scale = (self.global_scale, 1.0)
        large = random_crops(batch, 2, scale, self.jitter, self.flip, stream=GLOBAL_STREAM)
        if not self.local_views:
            return batch | {"views": large}
        scale = (self.local_scale, self.global_scale)
        small = random_crops(
            batch, self.local_views, scale, self.jitter, self.flip, stream=LOCAL_STREAM
        )
        return batch | {"views": torch.cat([large, small], 1)}

    def forward_both(self, batch: Batch, grad: bool = False) -> tuple[Outputs, Outputs]:
        assert self.head is not None
        assert self.teacher_head is not None
        views: Tensor = batch["views"]
        teacher_outputs = self.teacher({"image": views[:, :2].flatten(0, 1)})
        teacher_embedding = to_float32(_embedding(teacher_outputs))
        teacher_logits: Tensor = self.teacher_head({"embedding": teacher_embedding})["logits"]
        student_outputs = self.student({"image": views.flatten(0, 1)})
        student_logits: Tensor = self.head(to_float32(_embedding(student_outputs)))
        shape = len(views), -1, self.prototypes
        return {"view_logits": student_logits.view(shape)}, {
            "view_logits": teacher_logits.view(shape)
        }

    def step(self, batch: Batch) -> Iterator[Update]:
        yield self.compute_losses(batch)

    def compute_losses(self, batch: Batch) -> Update:
        """Compute the losses, and pass the training progress on to ``after_step``."""
        update = super().compute_losses(batch)
        progress = torch.as_tensor(batch.get("progress", 0.0), dtype=torch.float32)
        update.state_updates["progress"] = progress.to(first_tensor(batch).device).view(1)
        return update

    def after_step(self, gathered_rows: dict[str, Tensor]) -> None:
        super().after_step(gathered_rows)
        assert self.head is not None
        assert self.teacher_head is not None
        # All rows hold the progress of this step.
        progress = float(gathered_rows["progress"][0])
        decay = 1 - (1 - self.momentum) * (math.cos(math.pi * progress) + 1) / 2
        for average, network in ((self.teacher, self.student), (self.teacher_head, self.head)):
            average.decay = decay
            average.follow(network)


def _embedding(outputs: Outputs) -> Tensor:
    if "embedding" not in outputs:
        raise ValueError(
            "student: the head of dino needs an embedding. Expected 'embedding' in the outputs, "
            f"got {', '.join(outputs)}. Name its layer in taps"
        )
    embedding: Tensor = outputs["embedding"]
    return embedding
