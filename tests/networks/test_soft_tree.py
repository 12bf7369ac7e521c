"""Soft decision tree against a recursive computation of its leaves and its penalty."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from instil.networks.soft_tree import SoftTree, soft_tree


def built(depth: int, outputs: str = "probabilities") -> SoftTree:
    torch.manual_seed(0)
    tree = soft_tree(3, 4, depth=depth, outputs=outputs, sharpness=2.0)  # type: ignore[arg-type]
    assert isinstance(tree, SoftTree)
    return tree.double()


def leaf_probabilities(tree: SoftTree, row: Tensor) -> list[float]:
    """Probabilities of the leaves by a walk over the tree, in which node i has 2 i + 1, 2 i + 2."""
    probabilities: list[float] = []

    def walk(node: int, level: int, probability: float) -> None:
        if level == tree.depth:
            probabilities.append(probability)
            return
        logit = 2.0 * (tree.gates.weight[node] @ row + tree.gates.bias[node]).item()
        right = 1 / (1 + math.exp(-logit))
        walk(2 * node + 1, level + 1, probability * (1 - right))
        walk(2 * node + 2, level + 1, probability * right)

    walk(0, 0, 1.0)
    return probabilities


@pytest.mark.parametrize("depth", [1, 3])
def test_outputs_are_the_mixture_of_the_leaves(depth: int) -> None:
    rows = torch.randn(5, 4, dtype=torch.float64)
    for outputs in ("probabilities", "values"):
        tree = built(depth, outputs).eval()
        leaves = torch.tensor([leaf_probabilities(tree, row) for row in rows]).double()
        is_class = outputs == "probabilities"
        expected = leaves @ (tree.leaves.softmax(1) if is_class else tree.leaves)
        logits = tree(rows)
        actual = logits.softmax(1) if is_class else logits
        torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)
        if is_class:
            torch.testing.assert_close(logits.exp().sum(1), torch.ones(5), check_dtype=False)


def test_the_penalty_is_that_of_the_paper() -> None:
    tree = built(2).train()
    rows = torch.randn(6, 4, dtype=torch.float64)
    right = (2 * tree.gates(rows)).sigmoid()
    paths = [torch.ones(6).double(), 1 - right[:, 0], right[:, 0]]
    expected = 0.0
    for node, weight in enumerate((1.0, 0.5, 0.5)):
        share = ((paths[node] * right[:, node]).sum() / paths[node].sum()).item()
        expected -= weight * (0.5 * math.log(share) + 0.5 * math.log(1 - share))
    assert tree(rows)["loss"].item() == pytest.approx(expected, rel=1e-5)


def test_an_even_tree_has_the_smallest_penalty_and_a_hard_one_is_finite() -> None:
    tree = built(2).train()
    torch.nn.init.zeros_(tree.gates.weight)
    torch.nn.init.zeros_(tree.gates.bias)
    rows = torch.randn(6, 4, dtype=torch.float64)
    assert tree(rows)["loss"].item() == pytest.approx(2 * math.log(2), rel=1e-5)
    torch.nn.init.constant_(tree.gates.bias, 1e4)
    outputs = tree(rows)
    outputs["loss"].backward()
    assert outputs["loss"].isfinite()
    assert outputs["logits"].isfinite().all()
