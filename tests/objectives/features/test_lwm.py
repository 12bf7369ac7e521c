from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from instil.core import Batch, Net, Outputs
from instil.objectives.features.lwm import LwM, grad_cam, lwm_loss
from instil.schemes.offline.offline import Offline
from instil.teachers.frozen import Frozen
from instil.testing import check_objective, sample_outputs


def test_agrees_with_a_plain_loop() -> None:
    student, teacher = (
        torch.rand(3, 4, 6, dtype=torch.float64),
        torch.rand(3, 2, 6, dtype=torch.float64),
    )
    expected = []
    for n in range(3):
        a, b = student[n].numpy().reshape(2, 2, 6).mean(1).ravel(), teacher[n].numpy().ravel()
        expected.append(
            sum(
                abs(x - y)
                for x, y in zip(a / np.linalg.norm(a), b / np.linalg.norm(b), strict=True)
            )
        )
    assert np.allclose(lwm_loss(student, teacher, "none"), expected, rtol=1e-10)
    assert np.isclose(float(lwm_loss(student, teacher)), np.mean(expected))


def test_grad_cam_of_an_averaging_classifier_is_its_class_activation_map() -> None:
    stage, head = torch.randn(2, 5, 3, 4, requires_grad=True), nn.Linear(5, 7)
    scores = head(stage.mean((2, 3)))[:, 2]
    expected = torch.einsum("nchw,c->nhw", stage, head.weight[2]).relu() / 12
    assert torch.allclose(grad_cam(stage, scores), expected, atol=1e-6)
    tokens = stage.detach().flatten(2).mT[:, :9].requires_grad_()
    expected = (tokens @ head.weight[2]).relu().view(2, 3, 3) / 9
    assert torch.allclose(grad_cam(tokens, head(tokens.mean(1))[:, 2]), expected, atol=1e-6)


class Picture(nn.Module):
    """Convolution and a classifier of its squares, so that Grad-CAM depends on the map."""

    def __init__(self, width: int):
        super().__init__()
        self.stage, self.head = nn.Conv2d(1, width, 3, padding=1), nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.stage(x).square().mean((2, 3)))


def pictures(**options: Any) -> tuple[Offline, Batch]:
    torch.manual_seed(0)
    nets = [Net(Picture(width), taps={"features": ["stage"]}) for width in (3, 5)]
    return Offline(nets[0], Frozen(nets[1]), {"lwm": LwM(**options)}), {
        "x": torch.randn(6, 1, 4, 4),
        "index": torch.arange(6),
    }


def test_the_student_learns_to_attend_to_the_teachers_evidence() -> None:
    scheme, batch = pictures()
    scheme.prepare(batch)
    (update,) = scheme.step(batch)
    maps = []
    assert isinstance(scheme.teacher, Frozen)
    answer = scheme.teacher(batch)["logits"].argmax(1)
    for net in (scheme.student, scheme.teacher.net):
        model: Any = net.model
        stage = model.stage(batch["x"]).detach()
        importance = (
            2
            * (stage * model.head.weight[answer][:, :, None, None]).mean((2, 3), keepdim=True)
            / 16
        )
        maps.append((importance * stage).sum(1).relu())
    assert torch.allclose(update.losses["lwm"], lwm_loss(maps[0], maps[1]), rtol=1e-4)
    update.losses["lwm"].backward()
    weights = dict(scheme.named_parameters())
    assert weights["student.model.stage.weight"].grad.abs().sum() > 0
    assert all(
        parameter.grad is None for name, parameter in weights.items() if name.startswith("teacher")
    )


def test_is_trained_in_half_precision_too() -> None:
    scheme, batch = pictures()
    scheme.prepare(batch)
    with torch.autocast("cpu", torch.bfloat16):
        (update,) = scheme.step(batch)
    assert update.losses["lwm"].dtype == torch.float32
    whole, _ = pictures()
    whole.prepare(batch)
    (exact,) = whole.step(batch)
    assert torch.allclose(update.losses["lwm"], exact.losses["lwm"], rtol=0.1)
    update.losses["lwm"].backward()


def test_maps_of_zeros_are_finite() -> None:
    student = torch.zeros(2, 3, 3, requires_grad=True)
    lwm_loss(student, torch.rand(2, 3, 3)).backward()
    assert student.grad is not None
    assert torch.isfinite(student.grad).all()


def test_invalid_inputs_are_errors() -> None:
    student, teacher, batch = sample_outputs()
    with pytest.raises(ValueError, match="no gradient with respect to the input"):
        LwM()(student, teacher, batch)
    vectors: Outputs = {"features": (teacher["embedding"],)}
    with pytest.raises(ValueError, match="Expected more than one position"):
        LwM().build(student, teacher | vectors)
    dense = {"logits": torch.zeros(8, 3, 7)}
    with pytest.raises(ValueError, match=r"Expected shape \(N, C\)"):
        LwM().build(student | dense, teacher | dense)


def test_contracts() -> None:
    check_objective(LwM)


def test_compiles_without_graph_breaks() -> None:
    student, teacher = torch.rand(2, 4, 4), torch.rand(2, 4, 4)
    assert torch.allclose(
        torch.compile(lwm_loss, fullgraph=True, backend="eager")(student, teacher),
        lwm_loss(student, teacher),
    )
