"""Deep mutual learning: peers that learn from each other while they train."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Lt
from torch import Tensor, nn
from typing_extensions import Doc

from instil.core import Batch, Card, Objective, Objectives, Outputs, to_float32
from instil.schemes.bases.peers import PeerScheme


def averaged_logits(logits: Sequence[Tensor], average: str = "probabilities") -> Tensor:
    """Compute logits (..., C) that represent several networks.

    Args:
        logits: logits (..., C) of each network.
        average: ``"probabilities"`` for the logarithm of the mean probability, ``"logits"`` for
            the mean of the logits.

    Returns:
        Logits (..., C).

    Example:
        >>> import torch
        >>> averaged_logits([torch.tensor([0.0, 1.0]), torch.tensor([2.0, 1.0])], "logits")
        tensor([1., 1.])
    """
    stacked = to_float32(torch.stack(list(logits)))
    if average == "logits":
        return stacked.mean(0)
    # The logarithm of the mean probability, computed without leaving log space.
    return stacked.log_softmax(-1).logsumexp(0) - torch.tensor(float(len(stacked))).log()


class Mutual(PeerScheme):
    """Every network learns from every other network (Zhang et al. 2018).

    The loss of a network is the mean of its losses against the others. The student is exported.
    Each network has separate objectives (adapters, memory banks) for each of its teachers.

    A step costs one forward pass per network. ``sequential`` adds one without gradients for every
    network but the last, ``ema`` one for every network. Without ``sequential`` all networks are
    updated on outputs from before the step.
    """

    card = Card(
        "Deep mutual learning",
        "https://arxiv.org/abs/1706.00384",
        "CVPR",
        2018,
        source="online",
        algorithms=("multi-teacher",),
        holds_graph=True,
        deviations="Algorithm 1 recomputes the predictions after the update of each peer "
        "(sequential). By default all peers are updated on the same predictions. Some public code "
        "lets the gradient flow into the network that teaches; here it does not.",
        equation=r"\mathrm{CE}(z^k, y) + \frac{1}{K-1} \sum_{l \ne k} \mathrm{KL}(p^l \Vert p^k)",
        use="For training without a teacher, or for several networks of any size that are all "
        "useful: each is trained by its own optimizer.",
        pitfalls="Every peer costs a forward and a backward pass. Early in training the peers are "
        "no better than the student. The paper uses temperature 1 with weight 1. Feature losses "
        "have adapters for every pair of networks.",
    )

    def __init__(
        self,
        student: nn.Module,
        peers: Annotated[
            Sequence[nn.Module],
            Doc("any number of networks of any architecture, with the same keys as the student"),
        ],
        objectives: Objectives | Mapping[str, Objective],
        others: Annotated[
            Literal["each", "probabilities", "logits"],
            Doc(
                "teachers of a network. each: every other network is a separate teacher; "
                "probabilities, logits: the others are one teacher with the mean of their "
                "probabilities (DML_e in the paper) or of their logits"
            ),
        ] = "each",
        sequential: Annotated[
            bool,
            Doc(
                "each network learns from the outputs that the networks before it have after their "
                "update of this step, as in Algorithm 1"
            ),
        ] = False,
        ema: Annotated[
            float,
            Ge(0),
            Lt(1),
            Doc(
                "decay per step of the moving averages that teach instead of the networks (Ge et "
                "al. 2020); null: the networks teach"
            ),
        ]
        | None = None,
    ):
        super().__init__(student, peers, objectives, sequential, ema)
        self.others = others

    def teachers_for(self, outputs: list[Outputs], batch: Batch) -> list[list[Outputs]]:
        teachers: list[list[Outputs]] = []
        for index in range(len(outputs)):
            others = outputs[:index] + outputs[index + 1 :]
            if self.others == "each":
                teachers.append(others)
                continue
            logits = averaged_logits([other["logits"] for other in others], self.others)
            teachers.append([{"logits": logits}])
        return teachers
