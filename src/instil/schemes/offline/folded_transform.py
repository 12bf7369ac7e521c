"""NORM: a wide linear transform of the student's features, folded into its classifier."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Annotated, Literal, Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import Doc

from instil.core import (
    Batch,
    Card,
    Net,
    Objective,
    Objectives,
    Outputs,
    Scheme,
    Teacher,
    Update,
    to_float32,
)
from instil.functional.pooling import global_average_pool
from instil.items import replace_invalid_outputs

ROLES = ("logits", "features", "embedding")
"""Roles that modules other than the objectives read."""


class Expands(Protocol):
    """Objective that expands the channels of a stage of the student by a linear map."""

    adapters: nn.ModuleList

    def expand(self, student: Outputs) -> tuple[Tensor, Tensor]:
        """Return the stage (N, C, H, W) and its expansion (N, K, H, W)."""


class FoldedTransform(Scheme):
    """Training with a linear residual transform before the classifier (Liu et al. 2023).

    The last features f of the student become ``f + V W f``. An objective (``norm``) matches the
    expansion ``W f`` with the teacher, and V contracts it again. The classifier U reads the mean of
    the result, and the other objectives read its logits. Both maps are linear, so the student is
    exported with its own architecture and the classifier ``U (1 + V W)``.
    """

    card = Card(
        "NORM: knowledge distillation via N-to-one representation matching",
        "https://openreview.net/forum?id=CRNwGauQpb6",
        "ICLR",
        2023,
        source="offline",
        equation=r"\mathcal{L}_{obj}\big(U\, \overline{(1 + V W) f^s},\; W f^s\big), \quad "
        r"U' = U (1 + V W) \text{ is exported}",
        deviations="There is one transform, after the deepest stage, as for CIFAR-100. By default "
        "it has no BatchNorm.",
        use="For convolutional classifiers that must not grow: the transform costs nothing after "
        "export.",
        pitfalls="The student's classifier must be linear in the mean of its deepest stage, "
        "without a layer norm or a hidden layer in between.",
    )

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher | None,
        objectives: Objectives | Mapping[str, Objective],
        norm: Annotated[
            Literal["none", "batch"],
            Doc("layer after V; none: no layer, batch: BatchNorm as in the authors' code"),
        ] = "none",
    ):
        super().__init__(student, teacher, objectives)
        self.norm = norm
        self.contract: nn.Module = nn.Identity()
        self.learners["student"] += ("contract",)

    def sharding_obstacle(self) -> str | None:
        """Reason why the nets cannot be sharded."""
        return "reads the weight of the classifier outside its forward pass"

    def build(self, batch: Batch) -> None:
        objective = self._objective()
        super().build(batch)
        student = self.student(batch)
        for role in ("head", "features"):
            if role not in student:
                raise ValueError(
                    "student.taps: the transform is folded into the student's classifier. Expected "
                    f"'{role}' in its outputs, got {', '.join(student)}. Name '{role}' in taps"
                )
        stage, expanded = objective.expand(student)
        weight, bias = (to_float32(part) for part in student["head"])
        if not _reads_mean(stage, weight, bias, to_float32(student["logits"])):
            raise ValueError(
                "student: the classifier does not read the mean of its deepest stage, so the "
                "transform cannot be folded into it. Expected a linear classifier on the pooled "
                "stage. Use another scheme"
            )
        layers: list[nn.Module] = [nn.Conv2d(expanded.shape[1], stage.shape[1], 1)]
        if self.norm == "batch":
            layers.append(nn.BatchNorm2d(stage.shape[1]))
        self.contract = nn.Sequential(*layers).to(stage.device, stage.dtype)
        # Called for its error about a classifier without bias, before training.
        self._head()

    def step(self, batch: Batch) -> Iterator[Update]:
        yield self.compute_losses(batch)

    def compute_losses(self, batch: Batch) -> Update:
        """Compute the losses, with the logits of the transformed features."""
        teacher = self.teacher_outputs(batch)
        student = replace_invalid_outputs(self.student(batch), batch, ROLES)
        stage, expanded = self._objective().expand(student)
        embedding = global_average_pool(stage + self.contract(expanded))
        logits = F.linear(embedding, *(to_float32(part) for part in student["head"]))
        transformed = {"connected": expanded, "embedding": embedding, "logits": logits}
        update: Update = self.objectives(student | transformed, teacher, batch)
        return update

    def export(self) -> Net:
        """Return a copy of the student with the transform folded into its classifier."""
        net = copy.deepcopy(self.student)
        expand_weight, expand_bias = fold_to_linear(self._objective().adapters[-1])
        contract_weight, contract_bias = fold_to_linear(self.contract)
        head = net.model.get_submodule(self._head())
        assert isinstance(head, (nn.Linear, nn.Conv2d))
        with torch.no_grad():
            weight = to_float32(head.weight).flatten(1)
            # Before the weight changes: it may be a view of the head's own weight.
            bias_change = weight @ (contract_weight @ expand_bias + contract_bias)
            weight_change = weight @ contract_weight @ expand_weight
            head.weight.add_(weight_change.view_as(head.weight))
            assert head.bias is not None
            head.bias.add_(bias_change)
        return net

    def _objective(self) -> Expands:
        """The objective that expands the student's deepest stage."""
        expanding = [
            objective for _, objective in self.objectives.named() if hasattr(objective, "expand")
        ]
        if len(expanding) != 1:
            names = ", ".join(name for name, _ in self.objectives.named())
            raise ValueError(
                "objectives: folded_transform needs one objective that expands the student's "
                f"features. Expected norm, got {names}. Add norm"
            )
        return cast(Expands, expanding[0])

    def _head(self) -> str:
        """Module path of the student's classifier."""
        path = str(self.student.taps["head"]).removesuffix(":weight")
        if getattr(self.student.model.get_submodule(path), "bias", None) is None:
            raise ValueError(
                f"student: the classifier '{path}' has no bias, but the transform that is folded "
                "into it has one. Expected a linear layer with a bias. Add a bias"
            )
        return path


def _reads_mean(stage: Tensor, weight: Tensor, bias: Tensor, logits: Tensor) -> bool:
    """Whether the logits are a linear function of the mean of the stage."""
    if stage.shape[1] != weight.shape[1]:
        return False
    expected = F.linear(global_average_pool(stage), weight, bias)
    # Wide enough for the rounding of a network in half precision.
    tolerance = 1e-2 * float(expected.abs().max())
    return torch.allclose(expected, logits, rtol=1e-2, atol=tolerance)


def fold_to_linear(module: nn.Module) -> tuple[Tensor, Tensor]:
    """Compute the linear map of a 1x1 convolution and the BatchNorm after it in evaluation mode.

    Args:
        module: module with a 1x1 convolution, and optionally a BatchNorm after it.

    Returns:
        Matrix (K, C) and bias (K,).
    """
    weight = torch.empty(0)
    bias = torch.empty(0)
    with torch.no_grad():
        for layer in module.modules():
            if isinstance(layer, nn.Conv2d):
                weight = layer.weight.flatten(1)
                bias = weight.new_zeros(len(weight)) if layer.bias is None else layer.bias
            elif isinstance(layer, nn.BatchNorm2d):
                assert layer.running_mean is not None
                assert layer.running_var is not None
                scale = layer.weight / (layer.running_var + layer.eps).sqrt()
                weight = scale[:, None] * weight
                bias = layer.bias + scale * (bias - layer.running_mean)
    return weight, bias
