from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from instil.core import Objective
from instil.objectives.features.cwd import CWD, cwd_loss


def divergence(student: np.ndarray, teacher: np.ndarray, temperature: float) -> float:
    p, q = np.exp(teacher / temperature), np.exp(student / temperature)
    p, q = p / p.sum(), q / q.sum()
    return float((p * np.log(p / q)).sum())


def test_is_a_divergence_of_every_channel_or_every_position() -> None:
    student, teacher = torch.randn(2, 3, 2, 4).double(), torch.randn(2, 3, 2, 4).double()
    for n in range(2):
        s, t = student[n].flatten(1).numpy(), teacher[n].flatten(1).numpy()
        channels = [divergence(s[c], t[c], 3.0) * 9 for c in range(3)]
        positions = [divergence(s[:, p], t[:, p], 3.0) * 9 for p in range(8)]
        assert float(cwd_loss(student, teacher, 3.0, reduction="none")[n]) == pytest.approx(
            np.mean(channels)
        )
        assert float(cwd_loss(student, teacher, 3.0, "spatial", "none")[n]) == pytest.approx(
            np.mean(positions)
        )


def test_a_constant_of_each_channel_or_position_has_no_effect() -> None:
    stage = torch.randn(2, 3, 4, 4).double()
    assert float(cwd_loss(stage + torch.randn(2, 3, 1, 1), stage)) == pytest.approx(0, abs=1e-12)
    assert float(cwd_loss(stage + torch.randn(2, 1, 4, 4), stage, form="spatial")) == pytest.approx(
        0, abs=1e-12
    )


def test_invalid_inputs_are_errors(features: Callable[..., dict[str, tuple[Tensor, ...]]]) -> None:
    with pytest.raises(ValueError, match=r"Expected more than one position, got \(2, 3, 1, 1\)"):
        cwd_loss(torch.zeros(2, 3, 1, 1), torch.zeros(2, 3, 1, 1))
    with pytest.raises(ValueError, match="Expected more than one channel"):
        cwd_loss(torch.zeros(2, 1, 2, 2), torch.zeros(2, 1, 2, 2), form="spatial")
    with pytest.raises(ValueError, match=r"got 'channels'\. Did you mean channel"):
        cwd_loss(torch.zeros(2, 1, 2, 2), torch.zeros(2, 1, 2, 2), form="channels")
    pooled = {"features": tuple(stage.mean((2, 3)) for stage in features("cnn")["features"])}
    with pytest.raises(ValueError, match="Expected more than one position"):
        CWD().build(features("cnn"), pooled)


@pytest.mark.parametrize("form", ["channel", "spatial"])
def test_any_pair_of_networks(check_pair: Callable[[Objective], None], form: str) -> None:
    check_pair(CWD(form=form))  # type: ignore[arg-type]


def test_compiles_without_graph_breaks() -> None:
    student, teacher = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    assert torch.allclose(
        torch.compile(cwd_loss, fullgraph=True, backend="eager")(student, teacher),
        cwd_loss(student, teacher),
    )
