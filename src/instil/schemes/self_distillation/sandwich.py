"""A supernet whose largest network teaches its smallest and some random sub-networks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, Protocol, runtime_checkable

import numpy as np
import torch
from annotated_types import Ge, Gt, Le
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from typing_extensions import Doc

from instil.core import (
    Batch,
    Card,
    Net,
    Objective,
    Objectives,
    Outputs,
    Scheme,
    Update,
)

Share = Annotated[float, Gt(0), Le(1)]


@runtime_checkable
class Supernet(Protocol):
    """A model with sub-networks: part of the channels and layers of each stage.

    Attributes:
        depth: largest number of layers per stage.
    """

    depth: int

    def forward_subnet(self, image: Tensor, share: float, depth: int) -> Tensor:
        """Compute the logits of the sub-network with ``depth`` layers per stage."""

    def subnet(self, share: float, depth: int) -> nn.Module:
        """Return the sub-network as a model of its own."""


class Sandwich(Scheme):
    """Sandwich rule for supernets (Yu & Huang 2019), with in-place distillation (Wang et al. 2021).

    In each step the largest network learns from the labels. The smallest sub-network and
    ``random_subnets`` sub-networks of random width and depth learn from the logits of the largest.
    All share the weights of the student, such as ``networks:slimmable_cnn``. The objectives are
    cross_entropy (or label_smoothing) for the largest network, and alphanet for the others.

    The sub-network with ``export_share`` and ``export_depth`` is exported; the smallest one is
    evaluated, too.

    Raises:
        ValueError: for a student without sub-networks or with running statistics of BatchNorm, or
            an objective that reads other roles than logits, or both labels and a teacher.
    """

    card = Card(
        "AlphaNet: Improved Training of Supernets with Alpha-Divergence",
        "https://arxiv.org/abs/2102.07954",
        "ICML",
        2021,
        source="self",
        labels=("single", "multi", "binary"),
        tags=("new_architecture",),
        deviations="Sub-networks differ in one share of the channels of all stages and one depth; "
        "the paper samples width, depth, kernel size and expansion per stage, and the resolution. "
        "The network normalizes each sample (GroupNorm), so no statistics of BatchNorm need "
        "recalibration; the authors recalibrate, and here such students are refused. They "
        "regularize only the largest network by dropout. As in their code the losses of all "
        "networks are added up, with one optimizer step.",
        equation=r"\mathrm{CE}(z_{\max}, y) + "
        r"\sum_{a \in \{\min, r_1, \ldots, r_k\}} D_\alpha(p_{\max} \Vert p_a)",
        use="For several sizes from one training: deploy the width and depth that fit a device, "
        "without training again.",
        pitfalls="A step costs as much as its networks together: with two random sub-networks up "
        "to four forward and backward passes. With few labels the sub-networks outweigh the label "
        "loss: on digits with 100 of 1,000 labels the largest network reached 40 % instead of "
        "90 %. Give the objective of the sub-networks a smaller weight then. The other arms of a "
        "run train the whole supernet on the labels. Compare an exported sub-network with a "
        "network of its own size.",
    )

    def __init__(
        self,
        student: nn.Module,
        objectives: Objectives | Mapping[str, Objective],
        smallest_share: Annotated[
            Share, Doc("share of the channels in the smallest sub-network")
        ] = 0.25,
        smallest_depth: Annotated[
            int, Ge(1), Doc("layers per stage in the smallest sub-network")
        ] = 1,
        random_subnets: Annotated[int, Ge(0), Doc("random sub-networks per step")] = 2,
        export_share: Annotated[
            Share, Doc("share of the channels in the exported network; 1: all")
        ] = 1.0,
        export_depth: Annotated[
            int, Ge(1), Doc("layers per stage in the exported network; null: all")
        ]
        | None = None,
    ):
        super().__init__(student, None, objectives)
        self.smallest_share = smallest_share
        self.smallest_depth = smallest_depth
        self.random_subnets = random_subnets
        self.export_share = export_share
        self.export_depth = export_depth

    def sharding_obstacle(self) -> str | None:
        """Reason why the nets cannot be sharded."""
        return "calls a method of the model other than its forward pass"

    def build(self, batch: Batch) -> None:
        model = self.student.model
        if not isinstance(model, Supernet):
            raise ValueError(
                "student: the model has no sub-networks. Expected networks:slimmable_cnn or a "
                f"model with depth, forward_subnet and subnet, got {type(model).__name__}"
            )
        _check_statistics(model)
        for option, depth in (("smallest", self.smallest_depth), ("export", self.export_depth)):
            if depth is not None and depth > model.depth:
                raise ValueError(
                    f"scheme.{option}_depth: the student has fewer layers per stage. Expected at "
                    f"most {model.depth}, got {depth}"
                )
        for name, objective in self.objectives.named():
            if objective.items.labelled and any(objective.needs["teacher"]):
                raise ValueError(
                    f"objectives.{name}: sub-networks learn from the largest network only. "
                    "Expected objectives that read labels or a teacher, got "
                    f"{type(objective).__name__}, which reads both"
                )
        outputs = _logits(self.student(batch))
        self.objectives.build(outputs, outputs)

    def sizes(self, batch: Batch) -> list[tuple[float, int]]:
        """Draw the sub-networks of a step, the smallest first.

        They depend on ``seed`` and ``step`` only: every micro-batch and rank draws the same.

        Args:
            batch: the batch of this step.

        Returns:
            Share of the channels and depth of each sub-network.
        """
        depth = self._supernet().depth
        # Keyed by seed and step: every micro-batch and rank trains the same sub-networks.
        key = int(batch.get("seed", 0)), int(batch.get("step", 0))
        generator = np.random.default_rng(key)
        sizes = [(self.smallest_share, self.smallest_depth)]
        for _ in range(self.random_subnets):
            share = float(generator.uniform(self.smallest_share, 1.0))
            sizes.append((share, int(generator.integers(self.smallest_depth, depth + 1))))
        return sizes

    def step(self, batch: Batch) -> Iterator[Update]:
        yield self.compute_losses(batch)

    def compute_losses(self, batch: Batch) -> Update:
        """Compute the losses of the largest network, and those of the sub-networks against it."""
        largest = _logits(self.student(batch))
        teacher = {"logits": largest["logits"].detach()}
        update: Update = self.objectives(largest, teacher, batch)
        subnets = []
        for share, depth in self.sizes(batch):
            outputs = self.student(batch, call=_subnet_call(self.student.call, share, depth))
            subnets.append(self.objectives(_logits(outputs), teacher, batch))
        for name, objective in self.objectives.named():
            if any(objective.needs["teacher"]):
                losses = [subnet.losses[name] for subnet in subnets]
                update.losses[name] = torch.stack(losses).sum()
        return update

    def export(self) -> Net:
        """Return the chosen sub-network, or the whole supernet."""
        depth = self.export_depth or self._supernet().depth
        if self.export_share == 1 and depth == self._supernet().depth:
            return self.student
        return self._subnet(self.export_share, depth)

    def other_students(self) -> dict[str, Net]:
        """Return the smallest sub-network."""
        return {"smallest": self._subnet(self.smallest_share, self.smallest_depth)}

    def _subnet(self, share: float, depth: int) -> Net:
        return Net(self._supernet().subnet(share, depth), self.student.call, self.student.taps)

    def _supernet(self) -> Supernet:
        model = self.student.model
        assert isinstance(model, Supernet)
        return model


def _check_statistics(model: nn.Module) -> None:
    """Check that no layer has running statistics, which sub-networks of all sizes would share."""
    for name, part in model.named_modules():
        if isinstance(part, _BatchNorm) and part.track_running_stats:
            raise ValueError(
                f"student: sub-networks of all widths would share the running statistics of "
                f"'{name}', which fit none of them in evaluation. Expected GroupNorm, LayerNorm "
                "or BatchNorm with track_running_stats=False"
            )


class _Subnet(nn.Module):
    """A supernet that runs as one of its sub-networks."""

    def __init__(self, model: Supernet, share: float, depth: int):
        super().__init__()
        self.model = model
        self.share = share
        self.depth = depth

    def forward(self, image: Tensor) -> Tensor:
        return self.model.forward_subnet(image, self.share, self.depth)


def _subnet_call(
    call: Callable[..., Outputs], share: float, depth: int
) -> Callable[[nn.Module, Batch], Outputs]:
    """Return the call of the task, applied to a sub-network of its model."""

    def call_subnet(model: Any, batch: Batch) -> Outputs:
        # A new wrapper per call: the shared model itself keeps no size from an earlier call.
        return call(_Subnet(model, share, depth), batch)

    return call_subnet


def _logits(outputs: Outputs) -> Outputs:
    """Select the logits: features have a different width in each sub-network."""
    return {"logits": outputs["logits"]}
