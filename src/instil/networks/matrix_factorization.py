"""Matrix factorisation (Koren et al. 2009; Rendle et al. 2009): users and items as vectors."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from instil.cards import PositiveInt


class MatrixFactorization(nn.Module):
    """Scores of items: products of the vectors of user and item, and a bias of the item.

    Args:
        users: number of users.
        candidates: number of items.
        width: width of the vectors.
    """

    def __init__(self, users: int, candidates: int, width: int):
        super().__init__()
        self.users = nn.Embedding(users, width)
        self.items = nn.Parameter(torch.empty(candidates, width))
        self.bias = nn.Parameter(torch.zeros(candidates))
        nn.init.normal_(self.users.weight, std=0.1)
        nn.init.normal_(self.items, std=0.1)

    def forward(self, user: Tensor) -> dict[str, Tensor]:
        """Compute ``logits`` (N, D), ``query_embedding`` (N, E), ``candidate_embedding`` (N, D, E).

        Args:
            user: indices of users (N,).
        """
        embedding = self.users(user)
        return {
            "logits": embedding @ self.items.T + self.bias,
            "query_embedding": embedding,
            # The items are the same for all users: a view, not a copy.
            "candidate_embedding": self.items.expand(len(user), -1, -1),
        }


def matrix_factorization(
    users: PositiveInt, candidates: PositiveInt, width: PositiveInt = 16
) -> nn.Module:
    """Build a matrix factorisation.

    Args:
        users: number of users.
        candidates: number of items.
        width: width of the vectors of users and items.
    """
    return MatrixFactorization(users, candidates, width)
