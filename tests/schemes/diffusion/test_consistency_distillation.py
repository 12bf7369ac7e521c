from __future__ import annotations

import itertools
from functools import partial

import pytest
import torch

from instil.functional.diffusion.steps import solver_step
from instil.functional.diffusion.times import random_interval
from instil.schemes.diffusion.consistency_distillation import ConsistencyDistillation
from instil.teachers.frozen import Frozen
from instil.testing import check_scheme
from tests.schemes.denoisers import batch, clocked, constant, denoiser, matching, prepared, teacher


def scheme(**options: object) -> ConsistencyDistillation:
    return ConsistencyDistillation(denoiser(), teacher(), matching(), num_times=4, **options)


def test_contracts() -> None:
    check_scheme(lambda: scheme(decay=0.9), batch)


@pytest.mark.parametrize("solver", ["ddim", "heun"])
def test_the_step_of_a_constant_teacher_is_exact(solver: str) -> None:
    """The path of a constant image on the flow schedule is a straight line."""
    it = ConsistencyDistillation(
        denoiser(schedule="flow", num_classes=0),
        Frozen(constant(0.5, schedule="flow")),
        matching(),
    )
    noisy = torch.randn(4, 1, 2, 2)
    time, end = torch.tensor([1.0, 0.8, 0.5, 0.3]), torch.tensor([0.7, 0.2, 0.25, 0.0])
    reached = solver_step(it.teacher_denoised, it.schedule, noisy, time, end, solver)
    share = (end / time).view(-1, 1, 1, 1)
    assert torch.allclose(reached, 0.5 + share * (noisy - 0.5), atol=1e-6)


def test_the_heun_step_is_of_second_order() -> None:
    """The error of two half steps is a quarter of that of one; for ddim it is a half."""
    it = ConsistencyDistillation(denoiser(), teacher(), matching())
    noisy = torch.randn(8, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    label = torch.arange(8) % 3

    denoise = partial(it.teacher_denoised, label=label)

    def run(solver: str, count: int) -> torch.Tensor:
        grid = torch.linspace(0.8, 0.5, count + 1)
        result = noisy
        for start, end in itertools.pairwise(grid):
            times = start.expand(8), end.expand(8)
            result = solver_step(denoise, it.schedule, result, *times, solver)
        return result

    exact = run("heun", 64)
    errors = {
        solver: [float((run(solver, count) - exact).abs().mean()) for count in (2, 4)]
        for solver in ("ddim", "heun")
    }
    assert errors["heun"][0] / errors["heun"][1] == pytest.approx(4, rel=0.3)
    assert errors["ddim"][0] / errors["ddim"][1] == pytest.approx(2, rel=0.3)


def test_the_target_is_the_prediction_at_the_end_of_the_step_or_the_image_itself() -> None:
    it = prepared(scheme())
    start, end = random_interval(clocked(), it.schedule, 4)
    sample = it.draw(clocked())
    noisy = it.schedule.add_noise(sample.clean, sample.noise, start)
    denoise = partial(it.teacher_denoised, label=sample.label)
    reached = solver_step(denoise, it.schedule, noisy, start, end, "heun")
    _, target = it.forward_both(clocked())
    is_end = end == 0
    assert is_end.any()
    assert not is_end.all()
    assert torch.equal(target["denoised"][is_end], reached[is_end])
    inner = ~is_end
    predicted = it.run_student(reached[inner], end[inner], sample.label[inner])["denoised"]
    assert torch.allclose(target["denoised"][inner], predicted, atol=1e-5)
    assert not target["denoised"].requires_grad


def test_an_average_predicts_the_target_and_follows_the_student() -> None:
    it = prepared(scheme(decay=0.5))
    with torch.no_grad():
        for parameter in it.student.parameters():
            parameter.add_(1.0)
    before = [value.clone() for value in it.average.net.parameters()]
    it.after_step({})
    for old, new, fast in zip(
        before, it.average.net.parameters(), it.student.parameters(), strict=True
    ):
        assert torch.allclose(new, (old + fast) / 2)


def test_a_student_without_the_boundary_is_refused() -> None:
    with pytest.raises(ValueError, match=r"parameterisation: .* which x0 does not"):
        ConsistencyDistillation(denoiser(parameterisation="x0"), teacher(), matching())
    it = scheme(steps=2)
    assert (it.student_denoiser.steps, it.student_denoiser.solver) == (2, "consistency")
