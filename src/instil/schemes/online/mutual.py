"""Deep mutual learning: peers that learn from each other while they train."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Lt
from torch import Tensor, nn

from instil.core import Batch, Card, Objective, Objectives, Outputs, to_float32
from instil.schemes.bases.peers import PeerScheme


def averaged_logits(logits: Sequence[Tensor], of: str = "probabilities") -> Tensor:
    """Logits (..., C) of one net that stands for several: the log of their mean probability, or their mean."""
    stacked = to_float32(torch.stack(list(logits)))
    return (
        stacked.mean(0)
        if of == "logits"
        else stacked.log_softmax(-1).logsumexp(0) - torch.tensor(float(len(stacked))).log()
    )


class Mutual(PeerScheme):
    """Every net takes every other as its teacher (Zhang et al. 2018: the mean of its losses against the others); the student is exported.

    ``peers``: any number of nets of any architectures, described as the student is.
    ``others``: each other net is a teacher of its own, or all together are one, with the mean of their probabilities (the paper's DML_e) or logits.
    ``sequential``: each net learns from what the nets before it say after their update of this step, as in Algorithm 1.
    ``ema``: how much of itself a net's moving average keeps at each step, which then teaches in the net's place (Ge et al. 2020); null: none.

    Each net has objectives (adapters, banks) of its own for each of its teachers.

    One forward a net and step; one more without gradients with ``sequential`` for every net but the last, with ``ema`` for every net. Without
    ``sequential`` all are updated on answers from before the step.
    """

    card = Card(
        "Deep mutual learning",
        "https://arxiv.org/abs/1706.00384",
        "CVPR",
        2018,
        source="online",
        algorithms=("multi-teacher",),
        holds_graph=True,
        deviations="Algorithm 1 recomputes the predictions after each peer's update (sequential); by default all peers are updated on the same "
        "predictions. Some code lets the gradient flow into the net that teaches; here it does not.",
        equation=r"\mathrm{CE}(z^k, y) + \frac{1}{K-1} \sum_{l \ne k} \mathrm{KL}(p^l \Vert p^k)",
        use="No teacher at hand, or peers of any size that may all be of use: each is trained by its own optimizer.",
        pitfalls="Every peer costs a forward and a backward pass. Early in training the peers know nothing; the paper's temperature is 1 with "
        "weight 1. Losses of features have adapters for every pair of nets.",
    )

    def __init__(
        self,
        student: nn.Module,
        peers: Sequence[nn.Module],
        objectives: Objectives | Mapping[str, Objective],
        others: Literal["each", "probabilities", "logits"] = "each",
        sequential: bool = False,
        ema: Annotated[float, Ge(0), Lt(1)] | None = None,
    ):
        super().__init__(student, peers, objectives, sequential, ema)
        self.others = others

    def teachers_for(self, outputs: list[Outputs], batch: Batch) -> list[list[Outputs]]:
        others = [outputs[:turn] + outputs[turn + 1 :] for turn in range(len(outputs))]
        if self.others == "each":
            return others
        return [
            [{"logits": averaged_logits([one["logits"] for one in of], self.others)}]
            for of in others
        ]
