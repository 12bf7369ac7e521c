"""Semantic calibration: attention weights the teacher levels for each student level."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from annotated_types import Ge
from torch import Tensor, nn
from typing_extensions import Doc

from instil.core import Batch, Card, Outputs, Positive, to_float32
from instil.functional.choices import require_choice
from instil.functional.errors import squared_error
from instil.functional.feature_maps import as_map, require_dims, resize_to_common
from instil.functional.logits import apply_reduction
from instil.functional.pairs import Pairs, feature_levels, match_levels
from instil.functional.pooling import mean_positions
from instil.modules.adapters import match_dtype
from instil.modules.connectors import checked_norm, convolutions
from instil.objectives.bases.feature_objective import FeatureObjective

Attention = Literal["sample", "batch"]
MIN_WIDTH = 8
"""Smallest width of query and key: shorter unit vectors leave the attention few directions."""


def semckd_loss(distance: Tensor, attention: Tensor, reduction: str = "mean") -> Tensor:
    """Semantic calibration loss (Chen et al. 2021, Eq. 8).

    Distances between levels, weighted by attention: sum over the teacher levels, mean over the
    student levels.

    Args:
        distance: distances (N, S, T) between S student levels and T teacher levels.
        attention: weights (N, S, T).
        reduction: ``"mean"`` or ``"none"`` (one value per sample).

    Returns:
        Scalar, or (N,) for ``reduction="none"``.

    Example:
        >>> import torch
        >>> semckd_loss(torch.tensor([[[1.0, 3.0]]]), torch.tensor([[[0.75, 0.25]]]))
        tensor(1.5000)
    """
    require_dims(distance, 3, "distance")
    weighted = to_float32(attention) * to_float32(distance)
    return apply_reduction(weighted.sum(2).mean(1), reduction)


def semckd_attention(
    query: Tensor, key: Tensor, allowed: Tensor, temperature: float = 1.0
) -> Tensor:
    """Attention of student levels over teacher levels.

    Args:
        query: queries (N, S, D) of S student levels.
        key: keys (N, T, D) of T teacher levels.
        allowed: (S, T), False for pairs with attention 0.
        temperature: softmax temperature, > 0.

    Returns:
        Attention (N, S, T), which sums to 1 over the teacher levels.
    """
    energy = to_float32(query) @ to_float32(key).mT / temperature
    return energy.masked_fill(~allowed, -torch.inf).softmax(-1)


class AttentionEmbedding(nn.Module):
    """Two linear layers with a ReLU in between, and division by the length.

    Args:
        source: width of the input.
        width: width of the output.
    """

    def __init__(self, source: int, width: int):
        super().__init__()
        self.first = nn.Linear(source, 2 * width)
        self.second = nn.Linear(2 * width, width)

    def forward(self, values: Tensor) -> Tensor:
        return F.normalize(self.second(self.first(values).relu()), dim=1)


class SemCKD(FeatureObjective):
    """Squared distances between all levels, each through a regressor, weighted by attention."""

    card = Card(
        "Cross-layer distillation with semantic calibration",
        "https://arxiv.org/abs/2012.03236",
        "AAAI",
        2021,
        source="features",
        algorithms=("attention",),
        zero_at_match=False,
        published_weight=400.0,
        weight_setting="the authors' code, CIFAR-100, batches of 64, with kd of weight 1",
        deviations="By default, attention and norm use each sample alone, so that its loss does "
        "not depend on the rest of the batch. attention: 'batch' with norm: 'batch' is the "
        "authors' code. A later version of it uses temperature: sqrt(2).",
        equation=r"\frac{1}{S} \sum_s \sum_t \alpha_{st} \frac{1}{D_{st}} \lVert r_{st}(f^s_s) - "
        r"f^t_t \rVert_2^2, \quad \alpha_{s\cdot} = \mathrm{softmax}_t(q_s^\top k_t / \tau)",
        use="For pairs of different families or depths, where pairing by hand may choose the wrong "
        "levels: each student level weights its teacher levels. It costs three convolutions for "
        "every student level with every teacher level, more than any other feature loss here.",
        pitfalls="The authors' weight on ImageNet is 50, with kd of weight 1. Attention may prefer "
        "the easiest teacher level. List pairs to limit the cost.",
    )

    def __init__(
        self,
        attention: Annotated[
            Attention,
            Doc(
                "input of query and key. sample: pooled features of the sample. batch (published): "
                "similarities to the samples of the batch, in the order of index; couples the "
                "samples, and batches must not be larger than the first one"
            ),
        ] = "sample",
        factor: Annotated[
            int, Ge(1), Doc("width of the narrowest attention input over width of query and key")
        ] = 4,
        temperature: Annotated[Positive, Doc("softmax temperature of the attention")] = 1.0,
        norm: Annotated[
            Literal["group", "batch"],
            Doc(
                "normalization in the regressors: group (per sample) or batch (the authors' "
                "BatchNorm, couples the samples)"
            ),
        ] = "group",
        pairs: Annotated[
            Pairs,
            Doc(
                "pairs [[student level, teacher level], ...] that attention chooses from; auto: "
                "every student level with every teacher level"
            ),
        ] = "auto",
    ):
        super().__init__(pairs)
        self.norm = norm
        self.connector_norm = checked_norm(norm)
        require_choice("attention", attention, ("sample", "batch"))
        self.attention = attention
        self.factor = factor
        self.temperature = temperature
        self.queries = nn.ModuleDict()
        self.keys = nn.ModuleDict()
        self.num_samples = 0

    @property
    def couples(self) -> bool:
        """Whether the loss of a sample depends on the others."""
        return "batch" in (self.attention, self.norm)

    def choose(
        self, student_levels: Sequence[Tensor], teacher_levels: Sequence[Tensor]
    ) -> list[tuple[int, int]]:
        if self.pairs != "auto":
            return match_levels(student_levels, teacher_levels, self.pairs)
        matched = []
        for i in range(len(student_levels)):
            matched += [(i, j) for j in range(len(teacher_levels))]
        return matched

    def build(self, student: Outputs, teacher: Outputs) -> None:
        """Create the regressors, and a query or key for every level of a pair."""
        super().build(student, teacher)
        student_levels, teacher_levels = feature_levels(student), feature_levels(teacher)
        self.num_samples = len(student_levels[0])
        query_inputs = self._attention_inputs(student_levels, {i for i, _ in self.matched})
        key_inputs = self._attention_inputs(teacher_levels, {j for _, j in self.matched})
        inputs = [*query_inputs.values(), *key_inputs.values()]
        narrowest = min(values.shape[1] for values in inputs)
        min_width = MIN_WIDTH if self.attention == "sample" else 1
        width = max(min_width, narrowest // self.factor)
        # Queries before keys: the order decides the initial weights.
        self.queries = _embeddings(query_inputs, width)
        self.keys = _embeddings(key_inputs, width)

    def connect(self, student_features: Tensor, teacher_features: Tensor) -> tuple[nn.Module, str]:
        source, target = as_map(student_features).shape[1], as_map(teacher_features).shape[1]
        widths = (source, 2 * target, 2 * target, target)
        dims = min(as_map(student_features).ndim, as_map(teacher_features).ndim) - 2
        regressor = convolutions(widths, (1, 3, 1), self.norm, "plain", dims)
        regressor.to(student_features.device, to_float32(student_features).dtype)
        return regressor, "convolutions 1x1, 3x3 and 1x1, by attention"

    def loss(
        self, student_features: Tensor, teacher_features: Tensor, connection: nn.Module
    ) -> Tensor:
        student_map, teacher_map = resize_to_common(student_features, teacher_features)
        adapted: Tensor = connection(match_dtype(connection, student_map))
        return squared_error(adapted, teacher_map)

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        student_levels, teacher_levels = feature_levels(student), feature_levels(teacher)
        terms = {}
        for (i, j), regressor in zip(self.matched, self.adapters, strict=True):
            terms[i, j] = self.loss(student_levels[i], teacher_levels[j], regressor)
        zero = torch.zeros_like(next(iter(terms.values())))
        distances = []
        allowed_rows = []
        for query_name in self.queries:
            row = [(int(query_name), int(key_name)) for key_name in self.keys]
            distances += [terms.get(pair, zero) for pair in row]
            allowed_rows.append([pair in terms for pair in row])
        distance = torch.stack(distances, 1).view(len(zero), len(self.queries), len(self.keys))
        allowed = torch.tensor(allowed_rows, device=zero.device)
        query = self._embed(self.queries, student_levels, batch)
        key = self._embed(self.keys, teacher_levels, batch)
        attention = semckd_attention(query, key, allowed, self.temperature)
        return self.reduce_if_coupled(semckd_loss(distance, attention, "none"))

    def _attention_inputs(self, levels: Sequence[Tensor], indices: set[int]) -> dict[str, Tensor]:
        """Inputs of the attention in a dry batch, by index of the level."""
        return {str(index): self._attention_input(levels[index], {}) for index in sorted(indices)}

    def _embed(self, embeddings: nn.ModuleDict, levels: Sequence[Tensor], batch: Batch) -> Tensor:
        """Queries or keys (N, number of levels, D)."""
        vectors = []
        for name, embedding in embeddings.items():
            values = self._attention_input(levels[int(name)], batch)
            vectors.append(embedding(match_dtype(embedding, values)))
        return torch.stack(vectors, 1)

    def _attention_input(self, level: Tensor, batch: Batch) -> Tensor:
        """Pooled features (N, C) or similarities (N, number of samples) of a level."""
        if self.attention == "sample":
            return mean_positions(to_float32(as_map(level)))
        if len(level) > self.num_samples:
            raise ValueError(
                f"attention: 'batch' cannot compare so large a batch. Expected {self.num_samples} "
                f"samples or fewer, got {len(level)}. Keep the batch size, or use 'sample'."
            )
        values = to_float32(level).flatten(1)
        others = values[batch["index"].argsort()] if "index" in batch else values
        return F.pad(values @ others.mT, (0, self.num_samples - len(level)))


def _embeddings(inputs: dict[str, Tensor], width: int) -> nn.ModuleDict:
    """An embedding for each input."""
    embeddings = nn.ModuleDict()
    for name, values in inputs.items():
        embedding = AttentionEmbedding(values.shape[1], width)
        embeddings[name] = embedding.to(values.device, values.dtype)
    return embeddings
