"""A wide linear detour at the end of the student, learned with it and folded into its classifier when it is shipped."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Literal, Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

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
    replace_invalid_outputs,
    to_float32,
)
from instil.functional.pooling import global_average_pool

ROLES = ("logits", "features", "embedding")
"""Roles that are passed on to other modules than the objectives."""


class Expands(Protocol):
    """An objective that makes of a student's outputs a stage (N, C, H, W) and a linear view of it (N, K, H, W)."""

    adapters: nn.ModuleList

    def expand(self, student: Outputs) -> tuple[Tensor, Tensor]: ...


class FoldedTransform(Scheme):
    """The student's last features are f + V W f: W is the wide view that an objective matches with the teacher (``norm``), V leads back (Liu et al.
    2023). Its classifier reads their mean, and the other objectives see its logits. Both maps are linear: shipped is the student as it is, with
    the classifier U (1 + V W) in the place of its own, U.

    ``norm``: after V; none leaves it as it is, batch is the authors' BatchNorm.
    """

    card = Card(
        "NORM: knowledge distillation via N-to-one representation matching",
        "https://openreview.net/forum?id=CRNwGauQpb6",
        "ICLR",
        2023,
        source="offline",
        equation=r"\mathcal{L}_{obj}\big(U\, \overline{(1 + V W) f^s},\; W f^s\big), \quad U' = U (1 + V W) \text{ is shipped}",
        deviations="one transform, after the deepest stage, as for CIFAR-100; no BatchNorm in it by default",
        use="Convolutional classifiers that must not grow: what is trained with the student costs nothing once it is shipped.",
        pitfalls="The student's classifier must be linear on the mean of its deepest stage: no layer norm, no hidden layer in between.",
    )

    supports_sharding = False

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher | None,
        objectives: Objectives | Mapping[str, Objective],
        norm: Literal["none", "batch"] = "none",
    ):
        super().__init__(student, teacher, objectives)
        self.norm = norm
        self.contract: nn.Module = nn.Identity()
        self.learners["student"] += ("contract",)

    def build(self, batch: Batch) -> None:
        objective = self._objective()
        super().build(batch)
        student = self.student(batch)
        for role in ("head", "features"):
            if role not in student:
                raise ValueError(
                    f"the transform is folded into the student's classifier, and its '{role}' is not known; name it in the student's taps"
                )
        stage, view = objective.expand(student)
        weight, bias = (to_float32(part) for part in student["head"])
        read = (
            F.linear(global_average_pool(stage), weight, bias)
            if stage.shape[1] == weight.shape[1]
            else None
        )
        if read is None or not torch.allclose(
            read, to_float32(student["logits"]), rtol=1e-2, atol=1e-2 * float(read.abs().max())
        ):
            raise ValueError(
                "the student's classifier does not read the mean of its deepest stage, so nothing before it can be folded into it"
            )
        made: list[nn.Module] = [nn.Conv2d(view.shape[1], stage.shape[1], 1)]
        self.contract = nn.Sequential(
            *made, *([nn.BatchNorm2d(stage.shape[1])] if self.norm == "batch" else [])
        ).to(stage.device, stage.dtype)
        self._head()

    def step(self, batch: Batch) -> Iterator[Update]:
        yield self.compute_losses(batch)

    def compute_losses(self, batch: Batch) -> Update:
        """The objectives' update, with the logits of the transformed features in the place of the student's own."""
        teacher = self.teacher_outputs(batch)
        student = replace_invalid_outputs(self.student(batch), batch, ROLES)
        stage, view = self._objective().expand(student)
        embedding = global_average_pool(stage + self.contract(view))
        logits = F.linear(embedding, *(to_float32(part) for part in student["head"]))
        update: Update = self.objectives(
            student | {"connected": view, "embedding": embedding, "logits": logits}, teacher, batch
        )
        return update

    def export(self) -> Net:
        """The student as it was given, with its classifier changed; apart from the one that is trained."""
        net = copy.deepcopy(self.student)
        wide, back = linear(self._objective().adapters[-1]), linear(self.contract)
        head = net.model.get_submodule(self._head())
        assert isinstance(head, (nn.Linear, nn.Conv2d))
        with torch.no_grad():
            weight = to_float32(head.weight).flatten(1)
            moved = weight @ (back[0] @ wide[1] + back[1])
            head.weight.add_((weight @ back[0] @ wide[0]).view_as(head.weight))
            assert head.bias is not None
            head.bias.add_(moved)
        return net

    def _objective(self) -> Expands:
        """The objective that widens the student's deepest stage."""
        found = [
            objective for _, objective in self.objectives.named() if hasattr(objective, "expand")
        ]
        if len(found) != 1:
            names = ", ".join(name for name, _ in self.objectives.named())
            raise ValueError(
                f"a transform of the student's features needs one objective that widens them, norm; the objectives are {names}"
            )
        return cast(Expands, found[0])

    def _head(self) -> str:
        """Where the student's classifier is."""
        path = str(self.student.taps["head"]).removesuffix(":weight")
        if getattr(self.student.model.get_submodule(path), "bias", None) is None:
            raise ValueError(
                f"the student's classifier '{path}' has no bias, and the transform that is folded into it has one; give it a bias"
            )
        return path


def linear(part: nn.Module) -> tuple[Tensor, Tensor]:
    """The matrix (K, C) and the bias (K,) that 1x1 convolutions, each with its BatchNorm as in eval mode, come to."""
    weight, bias = torch.empty(0), torch.empty(0)
    with torch.no_grad():
        for layer in part.modules():
            if isinstance(layer, nn.Conv2d):
                weight = layer.weight.flatten(1)
                bias = weight.new_zeros(len(weight)) if layer.bias is None else layer.bias
            elif isinstance(layer, nn.BatchNorm2d):
                assert layer.running_mean is not None
                assert layer.running_var is not None
                scale = layer.weight / (layer.running_var + layer.eps).sqrt()
                weight, bias = (
                    scale[:, None] * weight,
                    layer.bias + scale * (bias - layer.running_mean),
                )
    return weight, bias
