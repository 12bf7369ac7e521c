from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from instil.core import Batch, Objective, Outputs

SHAPES = {
    "cnn": ((4, 8, 8), (6, 4, 4), (8, 2, 2)),
    "wide cnn": ((6, 16, 16), (8, 8, 8), (10, 4, 4), (12, 2, 2)),
    "vit": ((17, 5), (17, 5), (17, 5), (17, 5)),
    "plain vit": ((16, 9), (16, 9)),
    "one map": ((7, 4, 4),),
}
NETS = [
    ("cnn", "wide cnn"),
    ("cnn", "vit"),
    ("vit", "cnn"),
    ("plain vit", "vit"),
    ("one map", "cnn"),
    ("cnn", "cnn"),
]


@pytest.fixture(params=NETS, ids="<-".join)
def nets(request: pytest.FixtureRequest) -> tuple[str, str]:
    """Return the families of student and teacher."""
    student, teacher = request.param
    return student, teacher


@pytest.fixture
def features() -> Callable[..., Outputs]:
    """Return a function that creates features of a family."""

    def make(
        family: str, index: int = 4, seed: int = 0, dtype: torch.dtype = torch.float32
    ) -> Outputs:
        generator = torch.Generator().manual_seed(seed)
        stages = tuple(
            torch.randn(index, *shape, generator=generator).to(dtype) for shape in SHAPES[family]
        )
        return {
            "features": stages,
            "embedding": stages[-1].flatten(2).mean(2)
            if stages[-1].ndim == 4
            else stages[-1][:, 0],
        }

    return make


@pytest.fixture
def check_pair(
    features: Callable[..., Outputs], nets: tuple[str, str]
) -> Callable[[Objective], None]:
    """Check an objective on two families.

    It has one value per sample, also for one sample, and gradients in every stage and parameter,
    also in half precision.
    """
    student, teacher = (features(family, seed=seed) for seed, family in enumerate(nets))

    def check(objective: Objective) -> None:
        objective.build(student, teacher)
        batch: Batch = {"index": torch.arange(4)}
        student_inputs = student | {
            "features": tuple(stage.clone().requires_grad_() for stage in student["features"])
        }
        values = objective(student_inputs, teacher, batch)
        assert values.shape == (4,)
        values.mean().backward()
        used = {i for i, _ in objective.matched}  # type: ignore[union-attr]
        assert used
        for index in used:
            assert student_inputs["features"][index].grad.abs().sum() > 0
        for name, parameter in objective.named_parameters():
            assert parameter.grad is not None, name
            assert torch.isfinite(parameter.grad).all(), name
            assert parameter.grad.abs().sum() > 0, name
        for row in range(4):
            one = {"index": batch["index"][row : row + 1]}
            pair = [each(side, lambda rows, i=row: rows[i : i + 1]) for side in (student, teacher)]
            alone = objective(*pair, one)
            assert alone.shape == (1,)
            assert torch.allclose(alone[0], values[row], rtol=1e-4)
        half = objective(*(each(side, Tensor.bfloat16) for side in (student, teacher)), batch)
        assert half.dtype == torch.float32
        assert torch.allclose(half, values, rtol=0.1, atol=0.02)

    return check


def each(outputs: Outputs, change: Callable[[Tensor], Tensor]) -> Outputs:
    """Change every tensor of a structure."""
    return {
        role: tuple(map(change, value)) if isinstance(value, tuple) else change(value)
        for role, value in outputs.items()
    }
