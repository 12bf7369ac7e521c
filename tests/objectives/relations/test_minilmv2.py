from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from instil.core import Outputs
from instil.objectives.relations.minilmv2 import MiniLMv2, minilmv2_loss, relation_scores
from instil.testing import sample_outputs


def softmax(scores: list[float]) -> np.ndarray:
    exponentials = np.exp(np.array(scores) - max(scores))
    return exponentials / exponentials.sum()


def relation(first: np.ndarray, second: np.ndarray, heads: int, length: int) -> np.ndarray:
    """Return the relation (heads, length, length) of one sample without padding."""
    width = first.shape[1] // heads
    cut = [[slice(head * width, (head + 1) * width)] for head in range(heads)]
    return np.array(
        [
            [
                softmax(
                    [first[q][part] @ second[k][part] / math.sqrt(width) for k in range(length)]
                )
                for q in range(length)
            ]
            for (part,) in cut
        ]
    )


def test_agrees_with_a_plain_loop_over_real_tokens() -> None:
    lengths, heads = (4, 2), 3
    student, teacher = (
        [torch.randn(2, 4, width, dtype=torch.float64) for _ in range(2)] for width in (6, 9)
    )
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
    values = minilmv2_loss(
        relation_scores(*student, heads, mask), relation_scores(*teacher, heads, mask), mask, "none"
    )
    for n, length in enumerate(lengths):
        student_values, teacher_values = (
            relation(side[0][n].numpy(), side[1][n].numpy(), heads, length)
            for side in (student, teacher)
        )
        assert np.isclose(
            values[n],
            (teacher_values * np.log(teacher_values / student_values)).sum() / (heads * length),
            rtol=1e-10,
        )


def test_sums_relations_of_the_chosen_layers() -> None:
    student, teacher, batch = sample_outputs(task="text_classification")
    mask = batch["attention_mask"]

    def one(first: str, second: str, layers: tuple[int, int], heads: int) -> Tensor:
        scores = [
            relation_scores(side[first][n - 1], side[second][n - 1], heads, mask)
            for side, n in zip((student, teacher), layers, strict=True)
        ]
        return minilmv2_loss(*scores, mask, "none")

    objective = MiniLMv2(heads=16, layers=[[2, 3]])
    objective.build(student, teacher)
    expected = sum(one(role, role, (2, 3), 16) for role in ("queries", "keys", "values"))
    assert torch.allclose(objective(student, teacher, batch), expected)  # type: ignore[arg-type]


def test_one_tapped_tensor_is_one_layer() -> None:
    student, teacher, batch = sample_outputs(task="text_classification")
    tapped = [
        {role: side[role][-1] for role in ("queries", "keys", "values")}
        for side in (student, teacher)
    ]
    whole, last = MiniLMv2(), MiniLMv2()
    whole.build(student, teacher)
    last.build(*tapped)
    assert torch.equal(whole(student, teacher, batch), last(*tapped, batch))


def test_padding_changes_nothing() -> None:
    student, teacher, batch = sample_outputs(task="text_classification")
    objective = MiniLMv2()
    objective.build(student, teacher)
    padded = batch["attention_mask"][..., None] == 0

    def noisy(outputs: Outputs) -> Outputs:
        return {
            role: tuple(torch.where(padded, 7.0, part) for part in outputs[role])
            for role in ("queries", "keys", "values")
        }

    assert torch.equal(
        objective(noisy(student), noisy(teacher), batch), objective(student, teacher, batch)
    )
    shorter = {
        key: value[:, :4] if key == "attention_mask" else value for key, value in batch.items()
    }
    cut = [
        {role: tuple(part[:, :4] for part in side[role]) for role in ("queries", "keys", "values")}
        for side in (student, teacher)
    ]
    short = batch["attention_mask"].sum(1) <= 4
    assert torch.allclose(
        objective(*cut, shorter)[short], objective(student, teacher, batch)[short], rtol=1e-5
    )


def test_a_sample_without_a_token_is_zero_and_finite() -> None:
    queries = torch.randn(1, 3, 4, requires_grad=True)
    mask = torch.zeros(1, 3)
    loss = minilmv2_loss(
        relation_scores(queries, queries, 2, mask),
        relation_scores(torch.randn(1, 3, 4), torch.randn(1, 3, 4), 2, mask),
        mask,
    )
    assert loss == 0
    assert torch.isfinite(torch.autograd.grad(loss, queries)[0]).all()


def test_refuses_heads_that_do_not_divide_the_width() -> None:
    student, teacher, _ = sample_outputs(task="text_classification")
    with pytest.raises(
        ValueError, match=r"\(8, 6, 48\) and \(8, 6, 48\) cannot be related by 64 heads"
    ):
        MiniLMv2(heads=64).build(student, teacher)
    with pytest.raises(ValueError, match=r"relations: unknown value.*got 'qq'"):
        MiniLMv2(relations="qq")  # type: ignore[arg-type]


def test_compiles_whole() -> None:
    scores, mask = torch.randn(2, 2, 3, 3), torch.tensor([[1, 1, 0], [1, 1, 1]])
    compiled = torch.compile(minilmv2_loss, fullgraph=True, backend="eager")
    assert torch.allclose(compiled(scores, scores.mT, mask), minilmv2_loss(scores, scores.mT, mask))
    first = torch.randn(2, 3, 4)
    compiled = torch.compile(relation_scores, fullgraph=True, backend="eager")
    assert torch.allclose(compiled(first, first, 2, mask), relation_scores(first, first, 2, mask))
