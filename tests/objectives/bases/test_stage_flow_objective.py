from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from instil.objectives.bases.stage_flow_objective import StageFlow, require_two_stages
from instil.testing import sample_outputs


class Seen(StageFlow):
    """Keeps what it is given."""

    def flow(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
        self.seen = (
            [tuple(stage.shape) for stage in student],
            [tuple(stage.shape) for stage in teacher],
        )
        return student[0].flatten(1).sum(1)


def test_all_stages_come_together_in_the_teachers_shapes_shallow_to_deep() -> None:
    student, teacher, batch = sample_outputs()
    objective = Seen(pairs=[[2, 2], [0, 1]])
    objective.build(student, teacher)
    objective(student, teacher, batch)
    assert (
        objective.seen[0]
        == objective.seen[1]
        == [tuple(teacher["features"][j].shape) for j in (1, 2)]
    )


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
