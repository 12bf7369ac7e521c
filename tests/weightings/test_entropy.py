from __future__ import annotations

import numpy as np
import torch

from instil.weightings.entropy import Entropy, entropy


def plain(logits: np.ndarray, temperature: float) -> float:
    p = np.exp(logits / temperature - (logits / temperature).max())
    p /= p.sum()
    return float(-(p * np.log(p)).sum())


def test_is_the_teachers_entropy_and_the_product_of_both() -> None:
    student, teacher = (
        torch.randn(4, 5, dtype=torch.float64),
        torch.randn(4, 5, dtype=torch.float64),
    )
    factor = Entropy(temperature=3.0)({"logits": student}, {"logits": teacher}, {})
    for n in range(4):
        teacher_entropy, student_entropy = (
            plain(teacher[n].numpy(), 3.0),
            plain(student[n].numpy(), 3.0),
        )
        assert np.isclose(
            factor[n], (teacher_entropy + teacher_entropy * student_entropy / np.log(5)) / 2
        )


def test_certain_samples_may_be_preferred() -> None:
    logits = torch.tensor([[0.0, 0.0, 0.0], [100.0, 0.0, 0.0]])
    factor = Entropy(temperature=1.0, prefer="certain")({"logits": logits}, {"logits": logits}, {})
    assert torch.allclose(factor, torch.tensor([0.0, 1.0]), atol=1e-6)


def test_one_class_is_a_sigmoid() -> None:
    assert torch.allclose(entropy(torch.zeros(2, 1)), torch.tensor(2.0).log())
    assert torch.isfinite(entropy(torch.tensor([[1e4], [-1e4]]))).all()
