"""Sample weights that correct for texts of earlier weights of the student."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor
from typing_extensions import Doc

from instil.core import Batch, Card, Outputs, Positive, Weighting
from instil.functional.token_log_probs import chunked_log_probs
from instil.functional.tokens.signals import token_role
from instil.roles import Projection


def truncated_ratios(
    log_probs: Tensor,
    old_log_probs: Tensor,
    mask: Tensor,
    cap: float = 2.0,
    level: Literal["sequence", "token"] = "sequence",
) -> Tensor:
    """Truncated ratios of probabilities, ``min(p / p_old, cap)``.

    Args:
        log_probs: log-probabilities of the tokens by the current weights (N, T), or (N,) for texts
            of one token.
        old_log_probs: their log-probabilities by the weights that generated them (N, T).
        mask: True at the tokens of the text (N, T).
        cap: largest ratio.
        level: ``"sequence"``: ratio of the whole text, for each of its tokens; ``"token"``: ratio
            of each token.

    Returns:
        Ratios (N, T).

    Example:
        >>> import torch
        >>> new, old = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.25, 0.4]]).log()
        >>> truncated_ratios(new, old, torch.tensor([[True, True]]))
        tensor([[2., 2.]])
        >>> truncated_ratios(new, old, torch.tensor([[True, True]]), level="token")
        tensor([[2.0000, 1.2500]])
    """
    differences = (log_probs - old_log_probs).masked_fill(~mask, 0.0)
    if level == "sequence" and differences.ndim > 1:
        differences = differences.sum(-1, keepdim=True).expand_as(differences)
    return differences.exp().clamp_max(cap)


class TruncatedImportance(Weighting):
    """Weight min(p(y) / p_old(y), cap) of a text y that earlier weights generated.

    p is the student's probability, p_old that of the weights that generated the text. The weight is
    1 on the text of the data, and where both weights agree.
    """

    card = Card(
        "Your Efficient RL Framework Secretly Brings You Off-Policy RL Training",
        "https://fengyao.notion.site/off-policy-rl",
        "Blog of the authors",
        2025,
        algorithms=("adaptive",),
        tasks=("language",),
        labels=("single",),
        deviations="Published for policy gradients, whose weight belongs to the sampled token "
        "(level token), as in opd. A divergence over all tokens depends on the tokens before a "
        "position; for it only the ratio of the whole text (level sequence, sequence_truncate of "
        "TRL) changes the expectation.",
        equation=r"w = \min\Big( \prod_t \frac{p_\theta(y_t | y_{<t})}{p_{\theta'}(y_t | y_{<t})}, "
        r"\, C \Big)",
        use="With on_policy and rollouts.staleness above 0, if the loss depends much on the age of "
        "the texts: a large learning rate, or many steps of staleness.",
        pitfalls="Ratios of long texts scatter widely: most are near 0 or at the cap. Compare with "
        "training without the weight. It needs the logits of the student, and texts sampled at "
        "temperature 1 from all tokens.",
    )
    needs: ClassVar = {"student": (("logits",),), "teacher": ()}

    def __init__(
        self,
        cap: Annotated[Positive, Doc("largest ratio")] = 2.0,
        level: Annotated[
            Literal["sequence", "token"],
            Doc("sequence: ratio of the whole text; token: ratio of each token"),
        ] = "sequence",
    ):
        super().__init__()
        self.cap = cap
        self.level: Literal["sequence", "token"] = level
        # Number of tokens that may be generated; the scheme sets it.
        self.vocabulary: int | None = None

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        signal = student[token_role(student)]
        if "log_probability" not in batch:
            # The text of the data.
            hidden = signal.hidden if isinstance(signal, Projection) else signal
            return torch.ones(hidden.shape[:-1], device=hidden.device)
        log_probs = chunked_log_probs(signal, batch["token"], self.vocabulary)
        mask = batch["token"] >= 0
        return truncated_ratios(log_probs, batch["log_probability"], mask, self.cap, self.level)
