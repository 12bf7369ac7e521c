"""Training on images that are moved across the teacher's decision boundary."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from instil.core import Net, Schedule
from instil.functional.boundary_attack import boundary_step, other_class
from instil.objectives.features.jacobian import Jacobian
from instil.objectives.labels.cross_entropy import CrossEntropy
from instil.objectives.logits.kd import KD
from instil.schemes.adversarial.boundary_samples import BoundarySamples
from instil.teachers.frozen import Frozen
from instil.testing import check_scheme
from tests.schemes.image_nets import images, net, timed


def varied(seed: int) -> Net:
    """Network whose class depends on the image, near those of other seeds."""
    it = net(3, 1)
    noise = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        head = it.model[4]
        head.weight.mul_(8).add_(torch.randn(head.weight.shape, generator=noise))
    return it


def scheme(**options: Any) -> BoundarySamples:
    options = {"share": 1.0, "attack_steps": 4, "step_size": 0.5} | options
    boundary = BoundarySamples(
        varied(2), Frozen(varied(1)), {"kd": KD(), "cross_entropy": CrossEntropy()}, **options
    )
    boundary.train().prepare(images())
    return boundary


class Plane(nn.Module):
    """Network of two classes, separated by the sum of 5 x 5 pixels."""

    def forward(self, image: Tensor) -> Tensor:
        level = image.flatten(1).sum(1) - 12
        return torch.stack([level, -level], 1)


def test_keeps_the_contracts() -> None:
    """With a share of 1: a smaller one chooses among those of the micro-batch."""
    check_scheme(scheme, images)
    check_scheme(lambda: scheme(weight=Schedule(1.0, 0.0, until=0.03)), images)


def test_a_step_by_hand() -> None:
    image, logits = torch.rand(3, 1, 2, 2), torch.tensor([[2.0, 0.5], [0.1, 0.9], [1.0, 3.0]])
    gradient = torch.randn(3, 1, 2, 2)
    base, target = torch.tensor([0, 1, 0]), torch.tensor([1, 0, 1])
    moved = boundary_step(image, logits, base, target, gradient, 0.3)
    for index, apart in enumerate((1.5001, 0.8001)):
        expected = (
            image[index] - 0.3 * apart * gradient[index] / gradient[index].square().sum().sqrt()
        )
        assert torch.allclose(moved[index], expected, atol=1e-6)
    assert torch.equal(moved[2], image[2]), "it is beyond the boundary already"
    assert torch.equal(boundary_step(image, logits, base, target, 0 * gradient, 0.3), image)


def test_images_go_to_the_boundary_of_a_plane_and_no_further() -> None:
    """The gradient has length 10, so each step removes a tenth of the difference: 0.9 ** 30
    of it remains.
    """
    it = BoundarySamples(
        Net(nn.Sequential(nn.Flatten(), nn.Linear(25, 2))),
        Frozen(Net(Plane())),
        {"kd": KD()},
        share=1.0,
        attack_steps=30,
        step_size=0.01,
    )
    batch = {
        "image": 0.4 + 0.2 * torch.rand(16, 1, 5, 5),
        "label": torch.full((16,), -100),
        "index": torch.arange(16),
    }
    it.prepare(batch)
    before, after = (
        Plane()(image) for image in (batch["image"], it.before_step(batch)["boundary"])
    )
    left = sorted((after[:, 0] - after[:, 1]).abs().tolist())
    assert left == pytest.approx(
        sorted(0.9**30 * apart for apart in (before[:, 0] - before[:, 1]).abs().tolist()), abs=1e-3
    )


def test_the_other_class_is_drawn_by_the_teachers_probability_of_it() -> None:
    logits = torch.tensor([[3.0, 0.0, 1.0, -1.0]]).expand(20_000, 4)
    drawn = other_class(
        logits, torch.zeros(20_000, dtype=torch.int64), torch.linspace(0, 1 - 1e-6, 20_000)[:, None]
    )
    shares = torch.bincount(drawn, minlength=4) / 20_000
    assert torch.allclose(
        shares, F.softmax(torch.tensor([-torch.inf, 0.0, 1.0, -1.0]), 0), atol=1e-3
    )
    for base in range(4):  # a teacher that is certain still has a likeliest other class
        assert int(other_class(1e5 * logits[:1], torch.tensor([base]), torch.zeros(1, 1))) != base


def test_only_what_both_networks_have_right_begins_and_of_it_the_most_different() -> None:
    it, batch = scheme(share=0.25), timed()
    teacher, student = it.teacher_outputs(batch)["logits"], it.student(batch)["logits"]
    label = teacher.argmax(1).clone()
    label[::4] = (label[::4] + 1) % 5
    label[1] = -100
    agrees = student.argmax(1) == teacher.argmax(1)
    begins = agrees & (torch.arange(16) % 4 > 0)
    assert 4 <= begins.sum() < 12, "the choice is not tested"
    seen = it.before_step(batch | {"label": label})
    assert seen["boundary"].shape == (4, 1, 5, 5)
    assert seen["boundary_weight"].tolist() == [1.0] * 4
    apart = (teacher.softmax(1) - student.softmax(1)).square()
    apart[torch.arange(16), teacher.argmax(1)] = 0
    score = apart.sum(1).masked_fill(~begins, -1)
    assert apart.sum(1).argmax() not in score.argsort(descending=True)[:4]
    unmoved = scheme(share=0.25, step_size=1e-12).before_step(batch | {"label": label})["boundary"]
    assert torch.allclose(unmoved, batch["image"][score.argsort(descending=True)[:4]], atol=1e-6)
    wrong = it.before_step(batch | {"label": (teacher.argmax(1) + 1) % 5})
    assert it.counts(wrong)["boundary"] == 0
    assert next(iter(it.step(wrong))).losses["boundary"] == 0


def test_the_loss_is_the_softened_kl_there_with_the_weight_of_the_moment() -> None:
    it = scheme(temperature=3.0)
    batch = it.before_step(timed(progress=0.375) | {"label": torch.full((16,), -100)})
    led = {"image": batch["boundary"]}
    p, q = (
        (it.teacher_outputs(led)["logits"] / 3).log_softmax(1),
        (it.student(led)["logits"] / 3).log_softmax(1),
    )
    losses = next(iter(it.step(batch))).losses
    weight = batch["boundary_weight"]
    assert 0 < weight.sum() < 16
    expected = ((p.exp() * (p - q)).sum(1) * weight).sum() / weight.sum()
    assert torch.allclose(losses["boundary"], expected, rtol=1e-4)
    done = it.before_step(timed(progress=0.75))
    assert "boundary" not in done
    assert set(next(iter(it.step(done))).losses) == set(it.counts(done)) == {"kd", "cross_entropy"}


def test_the_student_is_in_no_attack() -> None:
    it = BoundarySamples(net(2, norm=True), Frozen(net(3, 1)), {"kd": KD()}, attack_steps=2)
    it.train().prepare(images())
    before = {name: value.clone() for name, value in it.state_dict().items()}
    it.before_step(timed())
    assert all(torch.equal(value, before[name]) for name, value in it.state_dict().items())
    assert all(parameter.grad is None for parameter in it.parameters())
    assert it.student.training


def test_unsuitable_batches_raise() -> None:
    with pytest.raises(ValueError, match="needs a teacher"):
        BoundarySamples(net(2), None, {"kd": KD()}).prepare(images())
    with pytest.raises(ValueError, match="takes gradients by the input"):
        BoundarySamples(net(2), Frozen(net(3)), {"jacobian": Jacobian()}).prepare(images())
    with pytest.raises(ValueError, match="needs one class per image"):
        BoundarySamples(net(2), Frozen(net(3)), {"kd": KD()}).prepare(
            images() | {"label": torch.zeros(16, 5)}
        )
    with pytest.raises(ValueError, match="BoundarySamples attacks images"):
        BoundarySamples(Net(nn.Linear(3, 5)), Frozen(Net(nn.Linear(3, 5))), {"kd": KD()}).prepare(
            {"x": torch.rand(4, 3), "label": torch.zeros(4)}
        )
