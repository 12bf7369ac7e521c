"""A policy enables distillation for each sample and spot."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from instil.core import Batch, Net, Objective, Objectives, Outputs
from instil.engine import Engine, Optimization
from instil.modules.stage_adapter import StageAdapter
from instil.networks.cnn import cnn
from instil.objectives.features.fitnet import FitNet
from instil.objectives.labels.cross_entropy import CrossEntropy
from instil.objectives.logits.kd import KD
from instil.objectives.relations.pkt import PKT
from instil.schemes.offline.spot_adaptive import SpotAdaptive
from instil.teachers.ensemble import Ensemble
from instil.teachers.frozen import Frozen
from instil.testing import check_scheme
from instil.training.step import train_step
from instil.weightings.entropy import Entropy
from tests import nets


def images(seed: int = 0, size: int = 16) -> Batch:
    inputs = nets.batch(size, seed)
    image = torch.rand(size, 1, 6, 6, generator=torch.Generator().manual_seed(seed))
    return {"image": image, **{key: inputs[key] for key in ("label", "index")}}


def timed(step: int = 0) -> Batch:
    return images(step) | {
        "step": torch.tensor(step),
        "progress": torch.tensor(step / 100),
        "seed": torch.tensor(0),
    }


def net(width: int, seed: int = 0, norm: str = "none", stages: int = 2) -> Net:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        taps = {"features": [f"stages.{stage}" for stage in range(stages)], "head": "head:weight"}
        return Net(cnn(5, width=width, stages=stages, norm=norm), taps=taps)


def make_scheme(
    objectives: Mapping[str, Objective] | Objectives | None = None,
    norm: str = "none",
    **options: Any,
) -> SpotAdaptive:
    torch.manual_seed(0)
    scheme = SpotAdaptive(
        net(2, norm=norm),
        Frozen(net(3, 1, norm)),
        objectives or {"kd": KD(), "deep": FitNet(pairs=[[1, 1]])},
        **options,
    )
    scheme.train().prepare(images())
    return scheme


@pytest.mark.parametrize("prior", [0.0, -1.5])
def test_contracts(prior: float) -> None:
    """With a prior against the teacher the push to distil moves in, too."""

    def make() -> SpotAdaptive:
        parts = {
            "cross_entropy": CrossEntropy(average="labelled"),
            "kd": KD(),
            "deep": FitNet(pairs=[[1, 1]]),
        }
        return SpotAdaptive(net(2), Frozen(net(3, 1)), parts, prior=prior)

    check_scheme(make, lambda step: images(step))


def test_samples_go_through_the_blocks_that_were_chosen() -> None:
    scheme = make_scheme()
    action = torch.tensor([[a, b, c] for a in (0, 1) for b in (0, 1) for c in (0, 1)] * 2).float()
    student, teacher = scheme.student.model, scheme.fixed.model
    expected = []
    with torch.no_grad():
        for image, (first, second, last) in zip(images()["image"], action, strict=True):
            student_stage = teacher_stage = image[None]
            for spot, choice in enumerate((first, second)):
                own, other = (
                    student.stages[spot](student_stage),
                    teacher.stages[spot](teacher_stage),
                )
                student_stage = scheme.to_student[spot](other) if choice else own
                teacher_stage = other if choice else scheme.to_teacher[spot](own)
            expected.append(
                (
                    teacher.head(teacher_stage.mean((2, 3)))
                    if last
                    else student.head(student_stage.mean((2, 3)))
                )[0]
            )
        labelled = images() | {"label": torch.zeros(16, dtype=torch.long)}
        assert torch.allclose(scheme.routed(labelled, action), torch.stack(expected), atol=1e-6)


@pytest.mark.parametrize("side", [0, 1])
def test_one_choice_for_all_is_one_net(side: int) -> None:
    scheme = make_scheme()
    labelled = images() | {"label": torch.zeros(16, dtype=torch.long)}
    alone = (scheme.student, scheme.fixed)[side](labelled)["logits"]
    assert torch.allclose(
        scheme.routed(labelled, torch.full((16, 3), float(side))), alone, atol=1e-6
    )


def test_the_choice_follows_the_policy_and_its_gradient_passes_straight_through() -> None:
    scheme = make_scheme(temperature=3.0)
    assert isinstance(scheme.policy, nn.Linear)
    score = torch.tensor([-1.0, 0.0, 2.0])
    with torch.no_grad():
        scheme.policy.weight.zero_()
        scheme.policy.bias.copy_(score)
    size = 4000
    features = (
        {"features": (torch.zeros(size, 4, 1, 1),)},
        {"features": (torch.zeros(size, 6, 1, 1),)},
    )
    action = scheme.decide(*features, timed() | {"index": torch.arange(size)})
    assert set(action.detach().unique().tolist()) == {0.0, 1.0}
    assert torch.allclose(action.detach().mean(0), score.sigmoid(), atol=0.03)
    again = scheme.decide(*features, timed() | {"index": torch.arange(size).flip(0)})
    assert torch.equal(action, again.flip(0)), "a draw is the sample's own"
    other = scheme.decide(*features, timed(1) | {"index": torch.arange(size)})
    assert 0.2 < float((action != other).float().mean()) < 0.6, "it is another in another step"
    action.sum(0)[1].backward()
    uniform = torch.rand(100_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    soft = ((uniform.log() - (1 - uniform).log()) / 3).sigmoid()
    assert scheme.policy.bias.grad is not None
    assert float(scheme.policy.bias.grad[1]) / size == pytest.approx(
        float((soft * (1 - soft) / 3).mean()), rel=0.02
    )


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_stages_of_an_unlabelled_sample_do_not_reach_the_policy(value: float) -> None:
    scheme, batch = make_scheme(), timed()
    unlabelled = torch.where(batch["label"] < 0, value, 0.0)
    student, teacher = scheme.forward_both(batch)
    action = scheme.decide(student, teacher, batch)

    def poison(module: nn.Module, arguments: tuple[Any, ...], outputs: Outputs) -> Outputs:
        stages = tuple(stage + unlabelled.view(-1, 1, 1, 1) for stage in outputs["features"])
        return {"features": stages, "logits": outputs["logits"] + unlabelled.view(-1, 1)}

    for net in (scheme.student, scheme.fixed):
        net.register_forward_hook(poison)
    logits = scheme.routed(batch, action)
    F.cross_entropy(logits, batch["label"], ignore_index=-100).backward()
    learner = [*scheme.policy.parameters(), *scheme.to_student.parameters()]
    for parameter in learner:
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()


def test_an_objective_counts_where_its_spot_is_on() -> None:
    parts = {
        "cross_entropy": CrossEntropy(average="labelled"),
        "kd": KD(),
        "shallow": FitNet(pairs=[[0, 0]]),
        "deep": FitNet(pairs=[[1, 1]]),
    }
    scheme, batch = make_scheme(Objectives(parts, sample_weights={"kd": Entropy()})), timed()
    student, teacher = scheme.student(batch), scheme.teacher_outputs(batch)
    action = scheme.decide(student, teacher, batch).detach()
    assert 0 < action.mean() < 1
    update = list(scheme.step(batch))[1]
    for name, spot in (("shallow", 0), ("deep", 1), ("kd", 2)):
        objective = scheme.objectives[name]
        values = objective(student, teacher, batch)
        if name == "kd":
            values = values * Entropy()(student, teacher, batch)
        assert torch.allclose(update.losses[name], (values * action[:, spot]).mean(), rtol=1e-5), (
            name
        )
    labelled = batch["label"] >= 0
    assert torch.allclose(
        update.losses["cross_entropy"],
        F.cross_entropy(student["logits"][labelled], batch["label"][labelled]),
    )


def test_the_policys_loss_is_that_of_the_routed_net() -> None:
    scheme, batch = make_scheme(balance=8.0), timed()
    action = scheme.decide(scheme.student(batch), scheme.teacher_outputs(batch), batch)
    labelled = batch["label"] >= 0
    expected = F.cross_entropy(scheme.routed(batch, action)[labelled], batch["label"][labelled])
    for share, push in ((0.75, 0.0), (0.25, 8.0)):
        scheme.share.fill_(share)
        update = next(iter(scheme.step(batch)))
        assert update.learner == "policy"
        assert torch.allclose(
            update.losses["route"], expected + push * (0.5 - action[labelled, -1].mean())
        )
    assert scheme.counts(batch)["route"] == labelled.sum()
    assert set(update.losses) == {"route"}


def test_the_share_is_that_of_the_last_step_among_the_items_that_count() -> None:
    scheme, engine = make_scheme(), Engine("cpu")
    engine.setup(scheme, lambda learner: Optimization("sgd", {"lr": 0.1}))
    batch = timed() | {"valid": torch.arange(16) < 10}
    action = scheme.decide(scheme.student(batch), scheme.teacher_outputs(batch), batch)
    train_step(engine, scheme, [batch])
    assert torch.allclose(scheme.share, action[:10, -1].mean())
    train_step(engine, scheme, [batch | {"valid": torch.zeros(16)}])
    assert torch.allclose(scheme.share, action[:10, -1].mean()), (
        "a step without samples has no effect"
    )


def test_only_the_students_own_forward_moves_its_batch_norm() -> None:
    scheme, batch = make_scheme(norm="batch"), timed()
    seen = next(part for part in scheme.student.modules() if isinstance(part, nn.BatchNorm2d))
    before = seen.num_batches_tracked.clone()
    list(scheme.step(batch))
    assert seen.num_batches_tracked == before + 1
    assert all(part.training for part in scheme.student.modules())
    assert not any(part.training for part in scheme.fixed.modules())


def test_compiled_nets_are_routed_too() -> None:
    torch.compiler.reset()
    scheme, compiled = make_scheme(), make_scheme()
    for one in (compiled.student, compiled.fixed):
        one.compile(backend="eager")
    for each in (scheme, compiled):
        engine = Engine("cpu")
        engine.setup(each, lambda learner: Optimization("sgd", {"lr": 0.1}))
        for step in range(2):
            train_step(engine, each, [timed(step)])
    for (name, value), other in zip(
        scheme.state_dict().items(), compiled.state_dict().values(), strict=True
    ):
        assert torch.allclose(value, other, atol=1e-5), name


def test_the_policy_learns_which_net_is_right() -> None:
    """The teacher predicts the label and the student cannot learn it: the output becomes
    distilled.
    """

    class Knows(nn.Module):
        def __init__(self, knows: bool) -> None:
            super().__init__()
            self.body, self.knows, self.bias = nn.Identity(), knows, nn.Parameter(torch.zeros(5))

        def forward(self, image: Tensor) -> Tensor:
            hidden: Tensor = self.body(image)
            return 5 * self.knows * hidden[:, :, 0, 0] + self.bias

    batch = timed()
    label = torch.arange(16) % 5
    batch |= {"image": F.one_hot(label, 5).float()[:, :, None, None], "label": label}
    taps = {"features": ["body"]}
    scheme = SpotAdaptive(
        Net(Knows(False), taps=taps),
        Frozen(Net(Knows(True), taps=taps)),
        {"kd": KD()},
        prior=-2.0,
        balance=0.0,
    )
    scheme.prepare(batch)
    engine, shares = Engine("cpu"), []
    engine.setup(
        scheme, lambda learner: Optimization("sgd", {"lr": 0.0 if learner == "student" else 1.0})
    )
    for step in range(60):
        train_step(engine, scheme, [batch | {"step": torch.tensor(step)}])
        shares.append(float(scheme.share))
    assert sum(shares[:5]) / 5 < 0.4
    assert sum(shares[-5:]) / 5 > 0.8


def test_a_step_without_labels_still_distils() -> None:
    scheme, engine = make_scheme(), Engine("cpu")
    engine.setup(scheme, lambda learner: Optimization("sgd", {"lr": 0.1}))
    losses = train_step(engine, scheme, [timed() | {"label": torch.full((16,), -100)}])
    assert losses["policy/route"] == 0
    assert losses["student/kd"] > 0


def test_inputs_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="Expected one fixed teacher, got Ensemble"):
        SpotAdaptive(net(2), Ensemble([net(3)]), {"kd": KD()}).prepare(images())
    with pytest.raises(ValueError, match="Expected one fixed teacher, got no teacher"):
        SpotAdaptive(net(2), None, {"cross_entropy": CrossEntropy()}).prepare(images())
    with pytest.raises(
        ValueError,
        match=(
            r"objectives\.pkt: PKT has one loss for the batch, which cannot be switched for a "
            r"sample"
        ),
    ):
        make_scheme({"pkt": PKT()})
    with pytest.raises(
        ValueError,
        match=r"objectives\.hint: .* one of \[0, 0\], \[1, 1\], got \[0, 0\], \[1, 1\]",
    ):
        make_scheme({"hint": FitNet()})
    with pytest.raises(ValueError, match=r"objectives\.hint: .* got \[0, 1\]"):
        make_scheme({"hint": FitNet(pairs=[[0, 1]])})
    with pytest.raises(ValueError, match=r"the student has 2 stages and the teacher 3"):
        SpotAdaptive(net(2), Frozen(net(3, stages=3)), {"kd": KD()}).prepare(images())
    with pytest.raises(ValueError, match="the policy learns to classify"):
        SpotAdaptive(net(2), Frozen(net(3)), {"kd": KD()}).prepare({"image": images()["image"]})


def test_stages_may_be_paired_by_hand_and_only_the_student_is_shipped() -> None:
    student = net(2)
    scheme = SpotAdaptive(
        student, Frozen(net(3, stages=3)), {"kd": KD()}, stage_pairs=[[0, 0], [1, 2]]
    )
    scheme.prepare(images())
    assert scheme.routed(images(), torch.ones(16, 3)).shape == (16, 5)
    assert [
        tuple(part.grid or ()) for part in scheme.to_teacher if isinstance(part, StageAdapter)
    ] == [
        (6, 6),
        (2, 2),
    ]
    assert scheme.export() is student
