"""Recommendation of items to users."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import nn

from instil.core import Batch, Card, Outputs
from instil.tasks.ranking import Ranking

ROLES = ("logits", "query_embedding", "candidate_embedding")


def call(model: nn.Module, batch: Batch) -> Outputs:
    """Score all items for users.

    Args:
        model: a model that maps user indices (N,) to scores (N, D), as a tensor or by name.
        batch: ``user`` (N,).

    Returns:
        ``logits`` (N, D). A model may also return ``query_embedding`` (N, E) of the users and
        ``candidate_embedding`` (N, D, E) of the items by name.
    """
    result = model(batch["user"])
    if not isinstance(result, Mapping):
        return {"logits": result}
    return {role: result[role] for role in ROLES if role in result}


class Recommendation(Ranking):
    """Recommendation of items to users.

    A sample is a user. ``label`` (N, D) is the grade of each item: above 0 for items that the user
    chose, 0 for others, and -100 for items that do not count, such as training items in the test.
    """

    card = Card(
        "Recommendation of items",
        "https://arxiv.org/abs/1205.2618",
        "UAI",
        2009,
        tasks=("recommendation",),
        labels=("graded",),
    )
    title = "recommendation"
    names = ("user", "label")
    inputs = ("user",)
    export_inputs = ("user",)
    export_roles = ("logits",)
    eval_batch_size = 256
    call = staticmethod(call)
    reads_texts = False

    def check_data(self, batch: Batch) -> None:
        super().check_data(batch)
        user = batch["user"]
        if user.ndim != 1 or user.is_floating_point():
            raise ValueError(
                f"user: wrong form. Expected one whole number per sample (N,), got {user.dtype} "
                f"{tuple(user.shape)}"
            )

    def call_exported(self, graph: Callable[[Batch], Outputs], batch: Batch) -> Outputs:
        """Return the scores of an exported student."""
        return graph(batch)
