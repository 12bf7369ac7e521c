from __future__ import annotations

import torch

from instil.objectives.logits.kd import KD
from instil.objectives.logits.tf_kd_self import TfKDSelf


def test_equals_kd_with_another_default_temperature() -> None:
    generator = torch.Generator().manual_seed(0)
    student, teacher = ({"logits": torch.randn(4, 6, generator=generator)} for _ in range(2))
    assert torch.equal(TfKDSelf()(student, teacher, {}), KD(6.0)(student, teacher, {}))
    assert torch.equal(TfKDSelf(2.0)(student, teacher, {}), KD(2.0)(student, teacher, {}))
