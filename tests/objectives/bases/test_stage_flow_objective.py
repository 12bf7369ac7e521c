from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from instil.core import Card
from instil.functional.pairs import consecutive_pairs, require_two_stages
from instil.objectives.bases.feature_objective import FeatureObjective
from instil.testing import sample_outputs


class Seen(FeatureObjective):
    card = Card("seen")

    def choose(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> list[tuple[int, int]]:
        return consecutive_pairs(student, teacher, self.pairs, self)


def test_all_stages_come_together_in_the_teachers_shapes_shallow_to_deep() -> None:
    student, teacher, _ = sample_outputs()
    objective = Seen(pairs=[[2, 2], [0, 1]])
    objective.build(student, teacher)
    student_maps, teacher_maps = objective.adapted_levels(student, teacher)
    expected = [teacher["features"][j].shape for j in (1, 2)]
    assert [level.shape for level in student_maps] == expected
    assert [level.shape for level in teacher_maps] == expected


def test_one_stage_leads_nowhere() -> None:
    with pytest.raises(
        ValueError,
        match=(
            "It goes from one stage to the next and needs two pairs of stages, not 1; tap more "
            "stages"
        ),
    ):
        require_two_stages(1, "It")
    require_two_stages(2, "It")
    student = {"features": (torch.zeros(2, 3, 4, 4),)}
    with pytest.raises(ValueError, match="Seen goes from one stage"):
        Seen().build(student, student)
