"""Momentum contrast next to a teacher: a queue of keys from a moving average of the student."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated

import torch
from annotated_types import Ge, Gt, Le, Lt
from torch import Tensor, nn
from typing_extensions import Doc

from instil.core import (
    Batch,
    Card,
    NonNegative,
    Objective,
    Objectives,
    Outputs,
    Positive,
    Scheme,
    Teacher,
    Update,
    item_weights,
    mean,
    to_float32,
)
from instil.functional.crops import random_crops
from instil.functional.directions import l2_normalize, pairwise_dot
from instil.functional.feature_maps import require_dims
from instil.functional.logits import apply_reduction
from instil.items import replace_invalid
from instil.modules.memory import Queue
from instil.modules.projectors import RegressionHead
from instil.teachers.ema import Ema

VIEWS_STREAM = "scheme.views"
"""Random stream of the two views."""
KEY_ROWS = "queue.key"
"""Rows of a step that ``after_step`` stores."""


def queue_contrast_loss(
    query: Tensor, key: Tensor, queue: Tensor, temperature: float = 0.2, reduction: str = "mean"
) -> Tensor:
    """InfoNCE of a query with its own key among the keys of a queue (He et al. 2020, Eq. 1).

    Args:
        query: (N, D).
        key: keys (N, D) of other views of the same samples; they receive no gradient.
        queue: unit keys (K, D) of other samples.
        temperature: divisor of the cosines, > 0.
        reduction: ``"mean"`` or ``"none"`` (one value per sample).

    Returns:
        Scalar, or (N,) for ``reduction="none"``.

    Example:
        >>> query = torch.tensor([[2.0, 0.0]])
        >>> queue_contrast_loss(query, query, torch.tensor([[0.0, 1.0]]), 1.0)
        tensor(0.3133)
    """
    require_dims(query, 2, "query")
    query_units = l2_normalize(query)
    own = (query_units * l2_normalize(key).detach()).sum(1, keepdim=True)
    scores = torch.cat([own, pairwise_dot(query_units, queue.to(query_units.dtype))], 1)
    return apply_reduction(-(scores / temperature).log_softmax(1)[:, 0], reduction)


class MomentumContrast(Scheme):
    """Student of a teacher that also contrasts two views (DisCo, Gao et al. 2022, Eq. 4).

    The student sees one random crop of each image, with its teacher, and a moving average of the
    student sees another. A perceptron on the student's ``embedding`` leads to the teacher's width.
    The objectives read its output as the student's embedding. The loss ``contrast`` compares it
    with the average's output, next to a queue of those of earlier samples. The perceptron is not
    exported.

    Raises:
        ValueError: if the batch has no ``image`` (N, C, H, W), or a network no embedding.
    """

    card = Card(
        "DisCo: Remedying Self-supervised Learning on Lightweight Models with Distilled "
        "Contrastive Learning",
        "https://arxiv.org/abs/2104.09124",
        "ECCV",
        2022,
        source="offline",
        algorithms=("contrastive",),
        tags=("changed_inputs",),
        tasks=("representation", "classification"),
        labels=("none", "single"),
        equation=r"\mathcal{L}_{obj}(z, f^t) - \lambda \log \frac{e^{\hat z^\top \hat k / \tau}}"
        r"{e^{\hat z^\top \hat k / \tau} + \sum_j e^{\hat z^\top \hat q_j / \tau}}, \quad "
        r"z = g(f^s(x_1)), \; k = g'(f^{s'}(x_2))",
        use="For a student of a contrastive teacher and small batches, which have few negatives "
        "for the objective disco. The distance of DisCo is simreg: {layers: 0}.",
        pitfalls="A crop must keep what distinguishes the images. The average is about 1 / (1 - "
        "momentum) steps old: short runs need a lower momentum and a shorter queue. A step costs "
        "a further forward pass of the student.",
        deviations="Views are crops with changed contrast and brightness. Only the first view is "
        "compared with the teacher, as in the authors' code; the paper compares both. The average "
        "has the running statistics of BatchNorm instead of shuffled batches, and it follows "
        "after a step. The perceptron has layer norm.",
    )

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher | None,
        objectives: Objectives | Mapping[str, Objective],
        contrast: Annotated[NonNegative, Doc("weight of the contrast")] = 1.0,
        temperature: Annotated[Positive, Doc("divisor of the cosines of the contrast")] = 0.2,
        size: Annotated[int, Ge(1), Doc("number of stored keys")] = 65536,
        momentum: Annotated[
            float, Ge(0), Lt(1), Doc("decay of the moving average that computes the keys")
        ] = 0.999,
        layers: Annotated[
            int, Ge(1), Doc("linear layers of the perceptron; 1: a linear projection")
        ] = 2,
        scale: Annotated[float, Gt(0), Le(1), Doc("smallest share of the image in a view")] = 0.2,
        jitter: Annotated[
            NonNegative, Doc("largest relative change of contrast and brightness of a view")
        ] = 0.4,
        flip: Annotated[bool, Doc("mirror half of the views")] = False,
    ):
        super().__init__(student, teacher, objectives)
        if teacher is None:
            raise ValueError("teacher: momentum_contrast needs one. Expected a network")
        self.contrast = contrast
        self.temperature = temperature
        self.size = size
        self.momentum = momentum
        self.layers = layers
        self.scale = scale
        self.jitter = jitter
        self.flip = flip
        self.average = Ema(self.student, momentum)
        self.head: nn.Module | None = None
        self.average_head: Ema | None = None
        self.queue: Queue
        self.learners["student"] += ("head",)

    def build(self, batch: Batch) -> None:
        own, target = embedding_of(self.student(batch)), embedding_of(self.teacher_outputs(batch))
        self.head = RegressionHead(own, target, self.layers).student
        # After the move to device and dtype, which the copy takes over.
        self.average_head = Ema(self.head, self.momentum)
        self.queue = Queue(self.size, {"key": target.shape[1]}, device=own.device, dtype=own.dtype)
        super().build(batch)

    def before_step(self, batch: Batch) -> Batch:
        """Replace ``image`` by a view, and add another one as ``key_image``."""
        if "image" not in batch or batch["image"].ndim != 4:
            raise ValueError(
                "scheme: momentum_contrast crops images. Expected 'image' (N, C, H, W) in the "
                f"batch, got {', '.join(batch)}. Use a data set of images"
            )
        scale = (self.scale, 1.0)
        views = random_crops(batch, 2, scale, self.jitter, self.flip, stream=VIEWS_STREAM)
        return batch | {"image": views[:, 0], "key_image": views[:, 1]}

    def counts(self, batch: Batch) -> dict[str, Tensor]:
        return {**super().counts(batch), "contrast": item_weights(batch).sum()}

    def forward_both(self, batch: Batch, grad: bool = False) -> tuple[Outputs, Outputs]:
        """Outputs of student and teacher; the student's ``embedding`` is that of the perceptron."""
        assert self.head is not None
        teacher = self.teacher_outputs(batch, grad)
        outputs = self.student(batch)
        # The gradient of the perceptron would be NaN with the embedding of an invalid sample.
        own = replace_invalid(embedding_of(outputs), batch)
        return outputs | {"embedding": self.head(own)}, teacher

    def step(self, batch: Batch) -> Iterator[Update]:
        yield self.compute_losses(batch)

    def compute_losses(self, batch: Batch) -> Update:
        """Losses of the objectives and of the contrast, and the keys to store."""
        student, teacher = self.forward_both(batch)
        update: Update = self.objectives(student, teacher, batch)
        keys = self.keys(batch)
        values = queue_contrast_loss(
            student["embedding"], keys, self.queue["key"], self.temperature, "none"
        )
        update.losses["contrast"] = self.contrast * mean(values, item_weights(batch))
        update.state_updates[KEY_ROWS] = keys[item_weights(batch) > 0]
        return update

    @torch.no_grad()
    def keys(self, batch: Batch) -> Tensor:
        """Unit keys (N, D) that the moving average computes from the second view."""
        assert self.average_head is not None
        outputs = self.average(batch | {"image": batch["key_image"]})
        embedding = replace_invalid(embedding_of(outputs), batch)
        keys: Tensor = self.average_head({"embedding": embedding})["logits"]
        return l2_normalize(keys)

    def after_step(self, gathered_rows: dict[str, Tensor]) -> None:
        """Move both averages, and store the keys of the step."""
        super().after_step(gathered_rows)
        assert self.head is not None
        assert self.average_head is not None
        for average, network in ((self.average, self.student), (self.average_head, self.head)):
            average.decay = self.momentum
            average.follow(network)
        self.queue.push(None, {"key": gathered_rows[KEY_ROWS]})


def embedding_of(outputs: Outputs) -> Tensor:
    """Embedding (N, D) of a network, in float32 or better.

    Args:
        outputs: outputs of the network.

    Raises:
        ValueError: for outputs without ``embedding``.
    """
    if "embedding" not in outputs:
        raise ValueError(
            "taps: momentum_contrast compares embeddings. Expected 'embedding' in the outputs of "
            f"student and teacher, got {', '.join(outputs)}. Name its layer in taps"
        )
    return to_float32(outputs["embedding"]).flatten(1)
