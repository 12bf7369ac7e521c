from __future__ import annotations

import numpy as np
import torch

from instil.functional.errors import sample_mean, squared_error


def test_a_value_a_sample_and_the_gradient_of_the_mean() -> None:
    student, teacher = (
        torch.randn(2, 3, 4, 5).double().requires_grad_(),
        torch.randn(2, 3, 4, 5).double(),
    )
    values = squared_error(student, teacher)
    difference = (student - teacher).detach().numpy()
    assert np.allclose(values.detach(), [(difference[n] ** 2).mean() for n in range(2)], rtol=1e-12)
    (gradient,) = torch.autograd.grad(values[1], student)
    assert np.allclose(gradient[1], 2 * difference[1] / difference[1].size, rtol=1e-12)
    assert not gradient[0].any()


def test_the_mean_of_each_sample() -> None:
    assert sample_mean(
        torch.tensor([[[1.0, 2.0], [3.0, 6.0]], [[0.0, 0.0], [0.0, 4.0]]])
    ).tolist() == [3.0, 1.0]
    assert sample_mean(torch.zeros(2, 0)).tolist() == [0.0, 0.0]
