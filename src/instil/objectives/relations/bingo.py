"""BINGO: contrast of the student with bags of similar samples of the teacher."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor, nn
from typing_extensions import Doc

from instil.core import Batch, Card, NonNegative, Outputs, Positive, check_bounds
from instil.functional.directions import l2_normalize, pairwise_dot
from instil.functional.feature_maps import require_same_shape
from instil.functional.logits import apply_reduction
from instil.modules.memory import Queue
from instil.modules.projectors import RegressionHead
from instil.objectives.bases.anchors import anchor_queue, anchor_rows
from instil.objectives.bases.relation_objective import RelationObjective


@check_bounds
def bingo_loss(
    student_embedding: Tensor,
    teacher_embedding: Tensor,
    queue: Tensor,
    bag: Tensor,
    excluded: Tensor,
    temperature: Positive = 0.2,
    inter: NonNegative = 1.0,
    reduction: str = "mean",
) -> Tensor:
    """InfoNCE with the own teacher embedding and with those of a bag (Xu et al. 2022).

    The first term has the sample's own teacher embedding as positive. The second one is the mean
    over the samples of its bag. The negatives of both are the samples of the queue outside the bag.

    Args:
        student_embedding: (N, D).
        teacher_embedding: (N, D).
        queue: unit teacher embeddings (K, D).
        bag: whether a row of the queue is in the bag of a sample (N, K), boolean.
        excluded: further rows that are left out of the negatives (N, K), boolean.
        temperature: divisor of the cosines, > 0.
        inter: weight of the second term. The term is 0 for an empty bag.
        reduction: ``"mean"`` or ``"none"`` (one value per sample).

    Returns:
        Scalar, or (N,) for ``reduction="none"``.

    Raises:
        ValueError: if the shapes of the embeddings differ.

    Example:
        >>> import torch
        >>> units, none = torch.eye(2), torch.zeros(1, 2, dtype=torch.bool)
        >>> bag = torch.tensor([[True, False]])
        >>> bingo_loss(units[:1], units[:1], units, bag, none, temperature=1.0)
        tensor(0.6265)
    """
    student, teacher = require_same_shape(student_embedding, teacher_embedding, "bingo_loss", 2)
    student_units = l2_normalize(student)
    own = (student_units * l2_normalize(teacher)).sum(1, keepdim=True) / temperature
    scores = pairwise_dot(student_units, queue.to(student_units.dtype)) / temperature
    negatives = scores.masked_fill(bag | excluded, -math.inf).logsumexp(1, keepdim=True)
    intra = torch.logaddexp(own, negatives) - own
    each = torch.logaddexp(scores, negatives) - scores
    size = bag.sum(1).clamp_min(1)
    of_bag = each.masked_fill(~bag, 0.0).sum(1) / size
    return apply_reduction(intra.squeeze(1) + inter * of_bag, reduction)


def nearest_rows(teacher_embedding: Tensor, queue: Tensor, candidates: Tensor, size: int) -> Tensor:
    """Rows of a queue that are the nearest neighbours of each sample by the teacher's cosine.

    Args:
        teacher_embedding: (N, D).
        queue: unit teacher embeddings (K, D).
        candidates: whether a row may be a neighbour (N, K), boolean.
        size: number of neighbours.

    Returns:
        Boolean (N, K), with ``size`` rows for each sample, or all candidates if there are fewer.

    Example:
        >>> import torch
        >>> every = torch.ones(1, 2, dtype=torch.bool)
        >>> nearest_rows(torch.tensor([[1.0, 0.2]]), torch.eye(2), every, 1)
        tensor([[ True, False]])
    """
    cosines = pairwise_dot(l2_normalize(teacher_embedding), queue.to(teacher_embedding.dtype))
    cosines = cosines.masked_fill(~candidates, -math.inf)
    rows = cosines.topk(min(size, queue.shape[0]), dim=1).indices
    return torch.zeros_like(candidates).scatter_(1, rows, True) & candidates


class BINGO(RelationObjective):
    """Contrast with the teacher's embedding of the sample and of its most similar earlier samples.

    Embeddings are (N, D) of any widths. The batch has the samples' ``index``. The perceptron before
    the loss is not exported.

    Raises:
        ValueError: if the batch has no ``index``.
    """

    card = Card(
        "Bag of Instances Aggregation Boosts Self-supervised Distillation",
        "https://arxiv.org/abs/2107.01691",
        "ICLR",
        2022,
        source="relations",
        algorithms=("contrastive",),
        tasks=("representation", "classification"),
        zero_at_match=False,
        deviations="A bag is the nearest neighbours among the samples of the last steps. The paper "
        "searches the whole data set before training, draws one sample of the bag per step, and "
        "compares the student of that sample with the teacher of the first one; bags are nearly "
        "symmetric. Members of the bag and earlier views of the sample are left out of the "
        "negatives.",
        equation=r"-\log \frac{e^{\hat z^\top \hat f^t / \tau}}{e^{\hat z^\top \hat f^t / \tau} + "
        r"S} - \frac{\lambda}{\vert B \vert} \sum_{p \in B} \log \frac{e^{\hat z^\top \hat f^t_p / "
        r"\tau}}{e^{\hat z^\top \hat f^t_p / \tau} + S}, \quad S = \sum_{k \notin B} e^{\hat "
        r"z^\top \hat f^t_k / \tau}",
        use="For a small student of a self-supervised teacher whose neighbours are often of one "
        "class. It pulls together what the teacher considers similar. Cost: `size` stored teacher "
        "vectors and a product with all of them each step.",
        pitfalls="The bags are as good as the teacher's neighbours: check its k-NN accuracy first. "
        "A bag larger than the number of stored samples of a class contains other classes.",
    )

    def __init__(
        self,
        bag: Annotated[int, Ge(1), Doc("number of similar samples in a bag")] = 5,
        temperature: Annotated[Positive, Doc("divisor of the cosines")] = 0.2,
        inter: Annotated[NonNegative, Doc("weight of the contrast with the bag")] = 1.0,
        size: Annotated[int, Ge(1), Doc("number of stored teacher embeddings")] = 65536,
        layers: Annotated[
            int, Ge(1), Doc("linear layers of the perceptron; 1: a linear projection")
        ] = 2,
    ):
        super().__init__()
        self.bag = bag
        self.temperature = temperature
        self.inter = inter
        self.size = size
        self.layers = layers
        self.queue: Queue

    def connect(self, student: Tensor, teacher: Tensor) -> nn.Module:
        return RegressionHead(student, teacher, self.layers)

    def build(self, student: Outputs, teacher: Outputs) -> None:
        super().build(student, teacher)
        self.queue = anchor_queue(self, self.size, ("teacher",), student, teacher)

    def loss(self, student_embedding: Tensor, teacher_embedding: Tensor, batch: Batch) -> Tensor:
        owner = self.queue.owner
        # Earlier views of the sample itself would be wrong negatives and trivial neighbours.
        excluded = _index(batch)[:, None] == owner
        candidates = (owner >= 0) & ~excluded
        anchors = self.queue["teacher"]
        return bingo_loss(
            student_embedding,
            teacher_embedding,
            anchors,
            nearest_rows(teacher_embedding, anchors, candidates, self.bag),
            excluded,
            self.temperature,
            self.inter,
            "none",
        )

    def state_updates(self, student: Outputs, teacher: Outputs, batch: Batch) -> dict[str, Tensor]:
        rows = anchor_rows(self, ("teacher",), student, teacher, batch)
        return rows | {"index": _index(batch)}

    def after_step(self, gathered_rows: dict[str, Tensor]) -> None:
        """Push the vectors of the step into the queue, which drops the oldest."""
        if gathered_rows:
            counts = gathered_rows["counts"]
            rows = {"teacher": gathered_rows["teacher"][counts]}
            self.queue.push(gathered_rows["index"][counts], rows)


def _index(batch: Batch) -> Tensor:
    if "index" not in batch:
        raise ValueError(
            f"BINGO needs 'index' in the batch, which has {', '.join(batch)}. Return it from the "
            "data set"
        )
    index: Tensor = batch["index"]
    return index
