from __future__ import annotations

import pytest
import torch
from torch import nn

from instil.core import Outputs
from instil.functional.hidden_states import layer_map, masked_mean, token_mask
from instil.objectives.bases.hidden_objective import HiddenObjective


@pytest.mark.parametrize(
    ("student", "teacher", "expected"),
    [
        (4, 12, [(1, 3), (2, 6), (3, 9), (4, 12)]),
        (6, 12, [(1, 2), (2, 4), (3, 6), (4, 8), (5, 10), (6, 12)]),
        (5, 12, [(1, 2), (2, 5), (3, 7), (4, 10), (5, 12)]),
        (3, 3, [(1, 1), (2, 2), (3, 3)]),
        (4, 1, [(1, 1), (2, 1), (3, 1), (4, 1)]),
    ],
)
def test_uniform_spreads_and_ends_with_the_last(
    student: int, teacher: int, expected: list[tuple[int, int]]
) -> None:
    assert layer_map("uniform", student, teacher) == expected
    assert layer_map("last", student, teacher) == [(student, teacher)]


def test_layers_chosen_by_the_user() -> None:
    assert layer_map([[0, 0], [2, 4]], 2, 4, first=0) == [(0, 0), (2, 4)]
    with pytest.raises(
        ValueError,
        match=r"layers: no teacher layer 5 in \[2, 5\]; the teacher has 4, numbered 1 to 4",
    ):
        layer_map([[2, 5]], 2, 4)
    with pytest.raises(
        ValueError, match=r"no student layer 0 in \[0, 0\]; the student has 2, numbered 1 to 2"
    ):
        layer_map([[0, 0]], 2, 4)
    with pytest.raises(
        ValueError,
        match=(
            r"layers: 'all' is neither 'uniform' nor 'last' nor a list of \[student layer, teacher "
            r"layer\]"
        ),
    ):
        layer_map("all", 2, 4)  # type: ignore[arg-type]


def test_masked_mean_is_that_of_what_counts() -> None:
    values = torch.tensor([[1.0, 2, torch.inf], [4, 5, 6], [torch.nan, 1, 1]])
    mask = torch.tensor([[1, 1, 0], [1, 1, 1], [0, 0, 0]])
    assert masked_mean(values, mask).tolist() == [1.5, 5, 0]
    assert masked_mean(values[1:2]).tolist() == [5]


def test_tokens_count_where_both_masks_are_true() -> None:
    tokens = torch.zeros(2, 3, 4)
    attended, valid = (
        torch.tensor([[1, 1, 0], [1, 1, 1]]),
        torch.tensor([[True, False, True], [False, True, True]]),
    )
    assert token_mask({}, tokens) is None
    assert token_mask({"valid": torch.ones(2)}, tokens) is None
    both = token_mask({"attention_mask": attended, "valid": valid}, tokens)
    assert both is not None
    assert both.tolist() == [[1, 0, 0], [0, 1, 1]]
    with pytest.raises(ValueError, match=r"a mask of shape \(2, 3\) for tokens \(2, 5, 4\)"):
        token_mask({"attention_mask": attended}, torch.zeros(2, 5, 4))


def outputs(width: int, layers: int, tokens: int = 5) -> Outputs:
    return {"hidden_states": tuple(torch.randn(3, tokens, width) for _ in range(layers + 1))}


def test_states_are_projected_where_widths_differ() -> None:
    objective = HiddenObjective()
    objective.build(outputs(4, 2), outputs(6, 4))
    assert objective.plan == [
        "student 1 (5x4) <- teacher 2 (5x6): projected",
        "student 2 (5x4) <- teacher 4 (5x6): projected",
    ]
    student, teacher = next(objective.matched_pairs(outputs(4, 2), outputs(6, 4)))
    assert student.shape == teacher.shape == (3, 5, 6)
    objective.build(outputs(6, 2), outputs(6, 4))
    assert [type(part) for part in objective.projections] == [nn.Identity, nn.Identity]


def test_other_tokens_are_refused() -> None:
    with pytest.raises(
        ValueError, match=r"hidden states are \(3, 5, 4\) and \(3, 7, 4\); both sides must have"
    ):
        HiddenObjective().build(outputs(4, 2), outputs(4, 2, tokens=7))
