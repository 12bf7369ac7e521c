"""ARD: clean teacher outputs for attacked images; contract of all schemes with attacks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from instil.core import Batch, Net, Objective
from instil.functional.robust_losses import soft_label_loss
from instil.objectives.features.fitnet import FitNet
from instil.objectives.features.jacobian import Jacobian
from instil.objectives.labels.cross_entropy import CrossEntropy
from instil.objectives.logits.kd import KD
from instil.schemes.bases.robust import RobustScheme
from instil.schemes.robust.adaad import AdaAD
from instil.schemes.robust.ard import ARD
from instil.schemes.robust.iad import IAD
from instil.schemes.robust.rslad import RSLAD
from instil.teachers.frozen import Frozen
from instil.testing import check_scheme
from tests import nets
from tests.schemes.image_nets import images, net, timed

KINDS = (ARD, RSLAD, AdaAD, IAD)
Kind = type[RobustScheme]


def build_scheme(kind: Kind, student: Net | None = None, **options: Any) -> RobustScheme:
    goals: dict[str, Objective] = {"cross_entropy": CrossEntropy()}
    scheme = kind(
        student or net(2),
        Frozen(net(3, 1)),
        goals,
        **{"epsilon": 0.2, "step_size": 0.05, "attack_steps": 3} | options,
    )
    scheme.train().prepare(images())
    return scheme


class Centred(nn.Module):
    """Linear network of 5 x 5 pixels around grey."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(25, 2, bias=False)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(image.flatten(1) - 0.5)


def test_contracts() -> None:
    check_scheme(
        lambda: ARD(
            net(2),
            Frozen(net(3, 1)),
            {"cross_entropy": CrossEntropy()},
            attack_steps=2,
            temperature=4.0,
        ),
        images,
    )


def test_the_loss_is_the_kl_divergence_of_softened_outputs() -> None:
    student, teacher = torch.randn(4, 5).double(), torch.randn(4, 5).double()
    for values, s, t in zip(
        soft_label_loss(student, teacher, 3.0).tolist(),
        student.numpy() / 3,
        teacher.numpy() / 3,
        strict=True,
    ):
        p, q = np.exp(t) / np.exp(t).sum(), np.exp(s) / np.exp(s).sum()
        assert values == pytest.approx(
            9 * sum(a * np.log(a / b) for a, b in zip(p, q, strict=True))
        )
    extreme = (1e4 * student.float()).requires_grad_()
    soft_label_loss(extreme, 1e4 * teacher.float()).sum().backward()
    assert extreme.grad is not None
    assert extreme.grad.isfinite().all()


def test_the_attacked_image_is_trained_towards_the_teachers_clean_output() -> None:
    scheme = build_scheme(ARD, temperature=4.0, weight=0.7)
    batch = scheme.before_step(timed())
    update = next(iter(scheme.step(batch)))
    attacked, teacher = (
        scheme.student({"image": batch["attacked"]})["logits"],
        scheme.teacher_outputs(batch)["logits"],
    )
    assert torch.allclose(
        update.losses["robust"], 0.7 * soft_label_loss(attacked, teacher, 4.0).mean()
    )
    assert set(update.losses) == set(scheme.counts(batch)) == {"cross_entropy", "robust"}


def test_the_attack_raises_the_cross_entropy_with_the_label_or_the_teachers_class() -> None:
    scheme, batch = build_scheme(ARD), timed()
    target = torch.where(
        batch["label"] < 0, scheme.teacher_outputs(batch)["logits"].argmax(1), batch["label"]
    )
    attacked = scheme.before_step(batch)["attacked"]
    worse, better = (
        nn.functional.cross_entropy(
            scheme.student({"image": image})["logits"], target, reduction="none"
        )
        for image in (attacked, batch["image"])
    )
    assert (worse > better).all()


@pytest.mark.parametrize("kind", KINDS)
def test_an_attack_keeps_its_budget_and_leaves_no_trace(kind: Kind) -> None:
    scheme = build_scheme(kind, net(2, norm=True))
    before = {name: value.clone() for name, value in scheme.state_dict().items()}
    batch = timed()
    again, prepared_batch = scheme.before_step(batch), scheme.before_step(batch)
    moved = (prepared_batch["attacked"] - batch["image"]).abs()
    assert 0 < moved.max() <= 0.2 + 1e-6
    assert prepared_batch["attacked"].min() >= 0
    assert prepared_batch["attacked"].max() <= 1
    assert torch.equal(again["attacked"], prepared_batch["attacked"])
    assert not torch.equal(
        prepared_batch["attacked"],
        scheme.before_step(batch | {"step": torch.tensor(7)})["attacked"],
    )
    assert all(torch.equal(value, before[name]) for name, value in scheme.state_dict().items())
    assert all(parameter.grad is None for parameter in scheme.parameters())
    assert scheme.student.training
    assert not prepared_batch["attacked"].requires_grad
    assert (
        next(value for value in prepared_batch.values() if isinstance(value, Tensor))
        is batch["image"]
    )


@pytest.mark.parametrize("kind", KINDS)
def test_items_that_are_not_valid_do_not_count(kind: Kind) -> None:
    scheme = build_scheme(kind)
    whole = timed() | {"valid": torch.arange(16) < 10}
    part = {key: value[:10] if value.ndim else value for key, value in timed().items()}
    losses = [
        next(iter(scheme.step(scheme.before_step(batch)))).losses["robust"]
        for batch in (whole, part)
    ]
    assert torch.allclose(losses[0], losses[1], atol=1e-6)
    assert float(scheme.counts(whole)["robust"]) == 10


@pytest.mark.parametrize("kind", KINDS)
def test_the_teacher_gives_logits_though_the_objectives_read_none(kind: Kind) -> None:
    scheme = kind(net(2), Frozen(net(3, 1)), {"fitnet": FitNet()}, attack_steps=1)
    scheme.prepare(images())
    assert set(next(iter(scheme.step(scheme.before_step(timed())))).losses) == {"fitnet", "robust"}


@pytest.mark.parametrize("kind", [ARD, RSLAD])
def test_the_student_comes_to_withstand_attacks(kind: Kind) -> None:
    """Students of a robust teacher, trained with and without attacks: on new samples only the one
    trained with attacks is robust.
    """
    torch.manual_seed(0)

    def task(size: int) -> Batch:
        """One strong pixel and many weak ones depend on the class. A robust teacher reads the
        strong one, and an attack inverts the weak ones.
        """
        label = torch.randint(0, 2, (size,))
        weak = 0.5 + 0.08 * (2 * label.float()[:, None] - 1) + 0.02 * torch.randn(size, 24)
        strong = 0.5 + 0.2 * torch.where(
            torch.rand(size) < 0.95, 2 * label.float() - 1, 1 - 2 * label.float()
        )
        image = torch.cat([strong[:, None], weak], 1).clamp(0, 1).view(size, 1, 5, 5)
        return {"image": image, "label": label, "index": torch.arange(size)}

    teacher = Centred()
    with torch.no_grad():
        teacher.head.weight.zero_()[:, 0] = torch.tensor([-20.0, 20.0])
    accuracy = {}
    for weight in (0.0, 5.0):
        student = Centred()
        options: dict[str, Any] = {"epsilon": 0.1, "step_size": 0.05, "attack_steps": 3}
        scheme = kind(
            Net(student),
            Frozen(Net(teacher)),
            {"cross_entropy": CrossEntropy()},
            weight=weight,
            **options,
        )
        scheme.prepare(task(8))
        optimizer = torch.optim.Adam(student.parameters(), 0.05)
        for step in range(150):
            clock = {
                "step": torch.tensor(step),
                "progress": torch.tensor(step / 150),
                "seed": torch.tensor(0),
            }
            for update in scheme.step(scheme.before_step(task(64) | clock)):
                optimizer.zero_grad()
                torch.stack(list(update.losses.values())).sum().backward()
                optimizer.step()
        test = task(500)
        for name, trial in kind.robustness_evaluations(options).items():
            accuracy[name, weight] = float(
                (student(trial(Net(student), test)["image"]).argmax(1) == test["label"])
                .float()
                .mean()
            )
    for name in ("fgsm", "pgd"):
        assert accuracy[name, 5.0] > 0.85 > 0.6 > accuracy[name, 0.0], accuracy


def test_trials_attack_on_the_labels_there_are_within_the_recipes_epsilon() -> None:
    student, teacher, batch = net(2), Frozen(net(3, 1)), images()
    for trial in ARD.robustness_evaluations({"epsilon": 0.2}).values():
        for judged in (student, teacher):
            with torch.no_grad():
                changed = trial(judged, batch)["image"]
            apart = (changed - batch["image"]).abs().flatten(1).amax(1)
            assert (apart[batch["label"] >= 0] > 0.1).all()
            assert apart.max() <= 0.2 + 1e-6
    assert (
        ARD.robustness_evaluations({})["fgsm"](student, batch)["image"] - batch["image"]
    ).abs().max() == pytest.approx(8 / 255, abs=1e-6)
    assert torch.equal(
        ARD.robustness_evaluations({"epsilon": 0.2})["fgsm"](student, batch)["image"][1],
        batch["image"][1],
    ), "it has no label"


def test_inputs_that_cannot_be_attacked_are_refused() -> None:
    with pytest.raises(
        ValueError,
        match=r"ARD attacks images\. Expected 'image' in the batch, .* with x, label, index",
    ):
        ARD(nets.net(4), Frozen(nets.net(8)), {"kd": KD()}).prepare(nets.batch())
    standardised = images() | {"image": images()["image"] * 4 - 2}
    with pytest.raises(ValueError, match=r"ARD changes pixels within \[0, 1\]\. .* from -.*\bstd"):
        ARD(net(2), Frozen(net(3)), {"kd": KD()}).prepare(standardised)
    with pytest.raises(ValueError, match="ARD needs a teacher"):
        ARD(net(2), None, {"cross_entropy": CrossEntropy()}).prepare(images())
    with pytest.raises(
        ValueError,
        match=r"^objectives\.jacobian takes gradients by the input, which RSLAD cannot give",
    ):
        RSLAD(net(2), Frozen(net(3)), {"jacobian": Jacobian()}).prepare(images())
    with pytest.raises(
        ValueError,
        match=r"AdaAD needs logits .* Got \(16, 5\) of the student and \(16, 4\) of the teacher",
    ):
        AdaAD(net(2), Frozen(net(2, classes=4)), {"cross_entropy": CrossEntropy()}).prepare(
            images()
        )
    several = timed() | {"label": torch.zeros(16, 5)}
    with pytest.raises(
        ValueError,
        match=r"label: IAD needs one class index per image, got torch\.float32 of shape \(16, 5\)",
    ):
        build_scheme(IAD).before_step(several)
    with pytest.raises(ValueError, match="RSLAD needs one class index per image"):
        RSLAD(net(2), Frozen(net(3, 1)), {"kd": KD()}).prepare(several)


def test_exports_the_student() -> None:
    student = net(2)
    assert build_scheme(ARD, student).export() is student
