from __future__ import annotations

import torch

from instil.objectives.logits.deit_soft import DeiTSoft
from instil.objectives.logits.kd import KD, kd_loss
from instil.testing import check_objective


def test_it_is_kd_of_the_distillation_token_where_there_is_one() -> None:
    generator = torch.Generator().manual_seed(0)
    token, plain, teacher = (torch.randn(4, 6, generator=generator) for _ in range(3))
    for student, read in (
        ({"logits": plain}, plain),
        ({"logits": plain, "distillation_logits": token}, token),
    ):
        objective = DeiTSoft(2.0)
        objective.resolve(student, ["logits"])
        values = objective(student, {"logits": teacher}, {})
        torch.testing.assert_close(values, kd_loss(read, teacher, 2.0, reduction="none"))
    assert isinstance(objective, KD)
    assert DeiTSoft().temperature == 3.0


def test_contracts_hold_at_another_temperature() -> None:
    check_objective(lambda: DeiTSoft(0.5))
