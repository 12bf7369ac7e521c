"""KDCL: peers learn from one set of logits that is computed from the logits of all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Lt
from torch import Tensor, nn
from typing_extensions import Doc

from instil.core import (
    UNLABELLED,
    Batch,
    Card,
    Objective,
    Objectives,
    Outputs,
    item_weights,
    to_float32,
)
from instil.functional.peer_ensembles import (
    best_logits,
    error_products,
    general_logits,
    linear_logits,
    minimum_logits,
)
from instil.schemes.bases.peers import PeerScheme

LABEL_TARGETS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "best": best_logits,
    "linear": linear_logits,
    "minimum": minimum_logits,
}
"""Ensembles that depend on the label."""


class KDCL(PeerScheme):
    """One ensemble teacher of all networks, which may have any sizes (Guo et al. 2020).

    The objectives compare each network with the logits of the ensemble: cross_entropy and kd.
    Samples without a label learn from the mean of the logits. The student is exported.
    """

    card = Card(
        "Online Knowledge Distillation via Collaborative Learning",
        "https://openaccess.thecvf.com/content_CVPR_2020/html/"
        "Guo_Online_Knowledge_Distillation_via_Collaborative_Learning_CVPR_2020_paper.html",
        "CVPR",
        2020,
        source="online",
        algorithms=("multi-teacher", "adaptive"),
        labels=("single",),
        holds_graph=True,
        deviations="All networks see the same version of an image; in the paper each sees a "
        "separate distortion. Best chooses per sample; public code chooses per batch. General "
        "measures the errors on the training batches, as a moving average, and gives no network a "
        "negative weight; the paper measures them on a validation set after each epoch.",
        equation=r"\mathrm{CE}(z^k, y) + T^2 \mathrm{KL}(p_T(z^t) \Vert p^k_T), \quad "
        r"z^t_c = \min_k (z^k_c - z^k_y)",
        use="For networks of different sizes that are trained together without a teacher: all of "
        "them, the large ones included, gain from one target.",
        pitfalls="Every peer costs a forward and a backward pass. Best, linear and minimum depend "
        "on the label, so a wrong label gives a wrong target.",
    )

    def __init__(
        self,
        student: nn.Module,
        peers: Annotated[
            Sequence[nn.Module],
            Doc("any number of networks of any architecture, with the same keys as the student"),
        ],
        objectives: Objectives | Mapping[str, Objective],
        target: Annotated[
            Literal["best", "linear", "minimum", "general", "mean"],
            Doc(
                "logits of the ensemble. best: those of the network with the lowest cross-entropy "
                "(KDCL-Naive); linear: the convex combination with the lowest cross-entropy; "
                "minimum: the minimum over the networks for each class, after the logit of the "
                "label is subtracted (KDCL-MinLogit); general: the combination with the smallest "
                "error by the running products of errors; mean: the mean, which some code calls "
                "naive"
            ),
        ] = "minimum",
        momentum: Annotated[
            float, Ge(0), Lt(1), Doc("decay per step of the running products of errors (general)")
        ] = 0.99,
    ):
        super().__init__(student, peers, objectives)
        self.target = target
        self.momentum = momentum
        self.errors: Tensor
        # The identity gives all networks the same weight until errors are measured.
        self.register_buffer("errors", torch.eye(len(peers) + 1))

    def teachers_for(self, outputs: list[Outputs], batch: Batch) -> list[list[Outputs]]:
        # Computed once: all networks have the same teacher.
        return [[{"logits": self.ensemble_logits(outputs, batch)}]] * len(outputs)

    def ensemble_logits(self, outputs: list[Outputs], batch: Batch) -> Tensor:
        """Compute the logits (N, C) of the teacher of all networks.

        Args:
            outputs: outputs of the networks, the student's first.
            batch: the batch of this step.

        Returns:
            Logits (N, C).

        Raises:
            ValueError: if the target depends on labels and the batch has none.
        """
        logits = _stack_logits(outputs)
        average = logits.mean(0)
        if self.target == "general":
            return general_logits(logits, self.errors)
        if self.target == "mean":
            return average
        if "label" not in batch:
            raise ValueError(
                f"scheme.target: {self.target} depends on labels. Expected 'label' in the batch, "
                f"got {', '.join(batch)}. Set target: mean"
            )
        label = batch["label"]
        targets = LABEL_TARGETS[self.target](logits, label)
        return torch.where((label != UNLABELLED).unsqueeze(-1), targets, average)

    def rows(self, outputs: list[Outputs], batch: Batch) -> dict[str, Tensor]:
        if self.target != "general":
            return {}
        counted = item_weights(batch) * (batch["label"] != UNLABELLED)
        weight = counted.view(-1, 1, 1)
        products = error_products(_stack_logits(outputs), batch["label"])
        # torch.where, because a non-finite product times weight 0 is NaN.
        products = torch.where(weight > 0, products * weight, 0.0)
        return {"errors": products, "counted": counted}

    def after_step(self, gathered_rows: dict[str, Tensor]) -> None:
        super().after_step(gathered_rows)
        if "errors" not in gathered_rows:
            return
        count = gathered_rows["counted"].sum()
        errors = gathered_rows["errors"].sum(0) / count.clamp_min(1)
        average = self.momentum * self.errors + (1 - self.momentum) * errors
        self.errors.copy_(torch.where(count > 0, average, self.errors))


def _stack_logits(outputs: list[Outputs]) -> Tensor:
    """Logits (K, N, C) of K networks."""
    logits = torch.stack([to_float32(output["logits"]) for output in outputs])
    if logits.ndim != 3:
        raise ValueError(
            "scheme: kdcl combines logits of whole samples. Expected logits (N, C), got shape "
            f"{tuple(logits.shape[1:])}. Use scheme mutual"
        )
    return logits
