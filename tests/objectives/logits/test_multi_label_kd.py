from __future__ import annotations

import math

import torch

from instil.objectives.logits.multi_label_kd import MultiLabelKD


def test_classes_are_independent_binary_decisions() -> None:
    generator = torch.Generator().manual_seed(0)
    student, teacher = (
        2 * torch.randn(3, 4, generator=generator, dtype=torch.float64) for _ in range(2)
    )
    expected = []
    for s_row, t_row in zip(student.tolist(), teacher.tolist(), strict=True):
        terms = []
        for s, t in zip(s_row, t_row, strict=True):
            p, q = 1 / (1 + math.exp(-t)), 1 / (1 + math.exp(-s))
            terms.append(p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q)))
        expected.append(sum(terms) / 4)
    torch.testing.assert_close(
        MultiLabelKD()({"logits": student}, {"logits": teacher}, {}),
        torch.tensor(expected, dtype=torch.float64),
    )
