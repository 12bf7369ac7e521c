from __future__ import annotations

import pytest
import torch

from instil.functional.hadamard import equalizing_rotation, hadamard


@pytest.mark.parametrize("size", [1, 2, 4, 8, 12, 20, 24, 28, 36, 96, 192, 384, 768])
def test_signs_with_orthogonal_rows(size: int) -> None:
    matrix = hadamard(size)
    assert matrix is not None
    assert matrix.abs().eq(1).all()
    assert torch.equal(matrix @ matrix.T, size * torch.eye(size, dtype=torch.float64))


@pytest.mark.parametrize("size", [3, 5, 6, 10, 18, 92])
def test_none_where_no_construction_gives_one(size: int) -> None:
    assert hadamard(size) is None


@pytest.mark.parametrize("size", [1, 2, 3, 7, 10, 12, 16, 30])
@pytest.mark.parametrize("kind", ["random", "alike", "one", "zero"])
def test_variances_are_equal_afterwards(size: int, kind: str) -> None:
    variances = {
        "random": torch.rand(
            size, dtype=torch.float64, generator=torch.Generator().manual_seed(size)
        )
        ** 4,
        "alike": torch.ones(size, dtype=torch.float64),
        "one": torch.eye(size, dtype=torch.float64)[0],
        "zero": torch.zeros(size, dtype=torch.float64),
    }[kind]
    rotation = equalizing_rotation(variances)
    assert torch.allclose(rotation @ rotation.T, torch.eye(size, dtype=torch.float64), atol=1e-12)
    after = (rotation @ torch.diag(variances) @ rotation.T).diagonal()
    assert torch.allclose(after, variances.mean().expand(size), atol=1e-12)
