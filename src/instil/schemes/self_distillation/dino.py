"""Self-distillation with no labels: a student and its slow copy see different parts of an image, and are to say the same of it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Annotated

import torch
import torch.nn.functional as F
from annotated_types import Ge, Lt
from torch import Tensor, nn

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

Count = Annotated[int, Ge(1)]


class Head(nn.Module):
    """Embeddings (N, D) to logits (N, K) of prototypes: three layers, a narrow one of unit length, and prototypes of unit length."""

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
        return F.linear(
            F.normalize(self.body(embedding), dim=-1), F.normalize(self.prototypes.weight, dim=-1)
        )


class DINO(Scheme):
    """Student and teacher, its moving average, each with a head on the ``embedding``; parts of each image are the views (Caron et al. 2021).

    The objectives see ``view_logits``: the student's (N, 2 + local_views, prototypes) of all views, the teacher's (N, 2, prototypes) of the two large
    ones. The student is exported without a head; its own classifier is as it was: a further stage trains it (student: previous).

    ``local_views``: small parts of an image, seen by the student alone.
    ``global_scale``: the least share of an image that a large view shows.
    ``local_scale``: the least share that a small one shows; at most it shows ``global_scale``.
    ``jitter``: by how much contrast and brightness of a view change.
    ``flip``: half of the views are mirrored.
    ``prototypes``: width of the logits.
    ``hidden``: width of the head.
    ``narrow``: width of its last layer but one.
    ``momentum``: how much of itself the teacher keeps at the first step; it rises to 1 by a cosine.

    Raises ValueError where the batch has no ``image`` (N, C, H, W), or the student gives no embedding.
    """

    card = Card(
        "Emerging Properties in Self-Supervised Vision Transformers",
        "https://arxiv.org/abs/2104.14294",
        "ICCV",
        2021,
        source="self",
        algorithms=("contrastive",),
        deviations="All views have the size of the image, so that any net takes them; the paper's small ones are smaller. Views are crops of changed "
        "contrast and brightness, without blur, solarisation and colours. The prototypes learn from the first step on, where the code holds them "
        "for an epoch.",
        equation=r"\sum_{g \in \lbrace 1, 2 \rbrace} \sum_{v \ne g} H\left(p^t(x_g), p^s(x_v)\right), \quad \theta_t \leftarrow m \theta_t + (1 - m) "
        r"\theta_s",
        use="Many images and few labels or none: the embedding is learned without them, a linear head from the few there are.",
        pitfalls="The exported net's classifier has learned nothing, so its accuracy after this stage is chance: judge it by a stage that trains the "
        "head. Crops must keep what tells classes apart; of digits a small one may be any digit's. Short runs need a lower momentum.",
    )

    def __init__(
        self,
        student: nn.Module,
        objectives: Objectives | Mapping[str, Objective],
        local_views: Annotated[int, Ge(0)] = 4,
        global_scale: Annotated[float, Ge(0), Lt(1)] = 0.4,
        local_scale: Annotated[float, Ge(0), Lt(1)] = 0.05,
        jitter: NonNegative = 0.4,
        flip: bool = False,
        prototypes: Count = 256,
        hidden: Count = 256,
        narrow: Count = 64,
        momentum: Annotated[float, Ge(0), Lt(1)] = 0.996,
    ):
        student = as_net(student)
        self.teacher: Ema
        super().__init__(student, Ema(student, momentum), objectives)
        self.local_views, self.global_scale, self.local_scale = (
            local_views,
            global_scale,
            local_scale,
        )
        self.jitter, self.flip, self.momentum = jitter, flip, momentum
        self.prototypes, self.hidden, self.narrow = prototypes, hidden, narrow
        self.head: Head | None = None
        self.teacher_head: Ema | None = None
        self.learners["student"] += ("head",)

    def build(self, batch: Batch) -> None:
        embedding = _embedding(self.student(batch))
        self.head = Head(embedding.shape[1], self.hidden, self.narrow, self.prototypes).to(
            embedding.device, to_float32(embedding).dtype
        )
        self.teacher_head = Ema(self.head, self.momentum)
        self.objectives.build(*self.forward_both(self.before_step(batch)))

    def before_step(self, batch: Batch) -> Batch:
        """The batch with its ``views`` (N, 2 + local_views, C, H, W), the large ones first."""
        if "image" not in batch or batch["image"].ndim != 4:
            raise ValueError(
                f"dino sees parts of 'image' (N, C, H, W), and the batch has {', '.join(batch)}"
            )
        large = random_crops(batch, 2, (self.global_scale, 1.0), self.jitter, self.flip, salt=11)
        if not self.local_views:
            return batch | {"views": large}
        small = random_crops(
            batch,
            self.local_views,
            (self.local_scale, self.global_scale),
            self.jitter,
            self.flip,
            salt=12,
        )
        return batch | {"views": torch.cat([large, small], 1)}

    def forward_both(self, batch: Batch, grad: bool = False) -> tuple[Outputs, Outputs]:
        assert self.head is not None
        assert self.teacher_head is not None
        views: Tensor = batch["views"]
        seen = self.teacher({"image": views[:, :2].flatten(0, 1)})
        taught: Tensor = self.teacher_head({"embedding": to_float32(_embedding(seen))})["logits"]
        said: Tensor = self.head(
            to_float32(_embedding(self.student({"image": views.flatten(0, 1)})))
        )
        number = len(views)
        return {"view_logits": said.view(number, -1, self.prototypes)}, {
            "view_logits": taught.view(number, -1, self.prototypes)
        }

    def step(self, batch: Batch) -> Iterator[Update]:
        yield self.compute_losses(batch)

    def compute_losses(self, batch: Batch) -> Update:
        """The objectives' update; of the clock it keeps the progress."""
        update = super().compute_losses(batch)
        update.state_updates["progress"] = (
            torch.as_tensor(batch.get("progress", 0.0), dtype=torch.float32)
            .to(first_tensor(batch).device)
            .view(1)
        )
        return update

    def after_step(self, gathered_rows: dict[str, Tensor]) -> None:
        super().after_step(gathered_rows)
        assert self.head is not None
        assert self.teacher_head is not None
        decay = (
            1
            - (1 - self.momentum)
            * (math.cos(math.pi * float(gathered_rows["progress"][0])) + 1)
            / 2
        )
        for slow, fast in ((self.teacher, self.student), (self.teacher_head, self.head)):
            slow.decay = decay
            slow.follow(fast)


def _embedding(outputs: Outputs) -> Tensor:
    if "embedding" not in outputs:
        raise ValueError(
            f"the heads of dino read 'embedding', and the net gives {', '.join(outputs)}; name its place in taps"
        )
    embedding: Tensor = outputs["embedding"]
    return embedding
