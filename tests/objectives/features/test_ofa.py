from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from instil.objectives.features.ofa import OFA, Form, ofa_loss
from instil.testing import check_objective


@pytest.mark.parametrize(("gamma", "temperature"), [(1.0, 1.0), (1.5, 1.0), (0.7, 2.0)])
@pytest.mark.parametrize("form", ["code", "paper"])
def test_agrees_with_a_plain_loop(gamma: float, temperature: float, form: Form) -> None:
    student, teacher, target = (
        torch.randn(4, 5, dtype=torch.float64),
        torch.randn(4, 5, dtype=torch.float64),
        torch.tensor([2, 0, -100, 4]),
    )
    expected = []
    for s, t, y in zip(
        student.numpy() / temperature, teacher.numpy() / temperature, target.tolist(), strict=True
    ):
        p, q = np.exp(t) / np.exp(t).sum(), np.exp(s) / np.exp(s).sum()
        if form == "code":
            terms = [
                ((1 + p[c]) ** gamma - 1 if c == y else p[c] ** gamma) * np.log(q[c])
                for c in range(5)
            ]
        else:
            terms = [((1 + p[c]) ** gamma if c == y else p[c]) * np.log(q[c]) for c in range(5)]
        expected.append(-sum(terms) if y >= 0 else 0.0)
    assert np.allclose(
        ofa_loss(student, teacher, target, gamma, temperature, form, "none"), expected, rtol=1e-12
    )
    assert np.isclose(
        float(ofa_loss(student, teacher, target, gamma, temperature, form)), sum(expected) / 3
    )


def test_with_gamma_1_it_is_the_cross_entropy_to_the_teacher() -> None:
    student, teacher = torch.randn(6, 5), torch.randn(6, 5)
    expected = nn.functional.cross_entropy(student, teacher.softmax(1))
    assert torch.allclose(ofa_loss(student, teacher, torch.randint(5, (6,)), gamma=1.0), expected)


def test_levels_of_any_architecture_have_exits(
    features: Callable[..., dict[str, tuple[Tensor, ...]]], nets: tuple[str, str]
) -> None:
    student, teacher = (
        features(nets[0]) | {"logits": torch.randn(4, 7)},
        {"logits": torch.randn(4, 7)},
    )
    objective = OFA()
    objective.build(student, teacher)
    tracked = {
        "features": tuple(stage.clone().requires_grad_() for stage in student["features"]),
        "logits": student["logits"],
    }
    label = torch.tensor([0, 1, 2, 3])
    values = objective(tracked, teacher, {"label": label})
    assert values.shape == (4,)
    values.sum().backward()
    for tensor in (*tracked["features"], *objective.parameters()):
        assert tensor.grad is not None
        assert torch.isfinite(tensor.grad).all()
    assert all(stage.grad.abs().sum() > 0 for stage in tracked["features"])
    one = {
        "features": tuple(stage[2:3] for stage in student["features"]),
        "logits": student["logits"][2:3],
    }
    assert torch.allclose(
        objective(one, {"logits": teacher["logits"][2:3]}, {"label": label[2:3]})[0],
        values[2],
        rtol=1e-4,
    )


def test_exits_of_earlier_levels_are_deeper(
    features: Callable[..., dict[str, tuple[Tensor, ...]]],
) -> None:
    logits = {"logits": torch.randn(4, 7)}
    objective = OFA()
    objective.build(features("wide cnn") | logits, logits)
    assert [
        sum(isinstance(part, nn.ReLU) for part in one.modules()) for one in objective.exits
    ] == [6, 4, 2, 0]
    objective.build(features("vit") | logits, logits)
    assert [
        sum(isinstance(part, nn.TransformerEncoderLayer) for part in one.modules())
        for one in objective.exits
    ] == [3, 2, 1, 1]


def test_dense_logits_an_unknown_form_and_one_class_are_errors(
    features: Callable[..., dict[str, tuple[Tensor, ...]]],
) -> None:
    dense = {"logits": torch.randn(4, 9, 7)}
    with pytest.raises(ValueError, match=r"logits: wrong number of dimensions. Expected \(N, C\)"):
        OFA().build(features("cnn") | dense, dense)
    with pytest.raises(ValueError, match=r"form: unknown value.*got 'papr'. Did you mean paper"):
        OFA(form="papr")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="defined for 2 or more"):
        ofa_loss(torch.zeros(2, 1), torch.zeros(2, 1), torch.zeros(2, dtype=torch.long))


def test_contracts() -> None:
    check_objective(lambda: OFA(gamma=0.8, temperature=2.0))


def test_compiles_whole() -> None:
    student, teacher, target = torch.randn(4, 5), torch.randn(4, 5), torch.tensor([2, 0, -100, 4])
    assert torch.allclose(
        torch.compile(ofa_loss, fullgraph=True, backend="eager")(student, teacher, target),
        ofa_loss(student, teacher, target),
    )
