from __future__ import annotations

import math

import pytest
import torch

from instil.objectives.logits.deit_hard import DeiTHard, deit_hard_loss


def test_equals_the_formula_on_either_head() -> None:
    generator = torch.Generator().manual_seed(0)
    token, plain, teacher = (
        2 * torch.randn(2, 3, 6, generator=generator, dtype=torch.float64) for _ in range(3)
    )
    for student, read in (
        ({"logits": plain}, plain),
        ({"logits": plain, "distillation_logits": token}, token),
    ):
        expected = []
        for s, t in zip(read.reshape(-1, 6).tolist(), teacher.reshape(-1, 6).tolist(), strict=True):
            expected.append(-math.log(math.exp(s[t.index(max(t))]) / sum(math.exp(z) for z in s)))
        objective = DeiTHard()
        objective.resolve(student, ["logits"])
        values = objective(student, {"logits": teacher}, {})
        torch.testing.assert_close(values, torch.tensor(expected, dtype=torch.float64).view(2, 3))
        torch.testing.assert_close(deit_hard_loss(read, teacher), values.mean())
    compiled = torch.compile(deit_hard_loss, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(plain, teacher), deit_hard_loss(plain, teacher))


def test_one_class_is_refused() -> None:
    with pytest.raises(ValueError, match="defined for 2 or more"):
        deit_hard_loss(torch.zeros(3, 1), torch.zeros(3, 1))
