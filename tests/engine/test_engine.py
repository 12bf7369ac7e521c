"""Learners, optimizers, precision, clipping: one step on one process."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from instil.balances.gradient_norm import GradientNorm
from instil.core import (
    Batch,
    Net,
    Objective,
    Objectives,
    Scheme,
    Teacher,
    Update,
    item_weights,
    mean,
)
from instil.engine import Engine, Optimization, devices, gather_rows, rank, world_size
from instil.engine.processes import max_over_ranks
from instil.objectives.features.camkd import CAMKD
from instil.objectives.features.fitnet import FitNet
from instil.objectives.labels.cross_entropy import CrossEntropy
from instil.objectives.logits.kd import KD
from instil.schemes.adversarial.adversarial import Adversarial
from instil.schemes.offline.offline import Offline
from instil.teachers.ensemble import Ensemble
from instil.teachers.frozen import Frozen
from instil.testing import sample_outputs
from instil.training.step import train_step
from tests.nets import batch, call, net, timed


class Pair(Scheme):
    """Two students with one loss; the learners are set by a test."""

    def __init__(
        self,
        learners: Mapping[str, tuple[str, ...]],
        turns: tuple[Any, ...] = (("student", "other"),),
    ):
        super().__init__(net(4), None, {"cross_entropy": CrossEntropy()})
        self.other = net(6, 1)
        self.learners, self.turns = dict(learners), turns

    def step(self, batch: Batch) -> Iterator[Update]:
        for learner in self.turns:
            losses = self.objectives(self.student(batch), {}, batch).losses["cross_entropy"]
            yield Update(
                {
                    "cross_entropy": losses
                    + self.objectives(self.other(batch), {}, batch).losses["cross_entropy"]
                },
                learner,
            )


OWN = {"student": ("student", "objectives"), "other": ("other",)}


def offline(*objectives: Objective, width: int = 4, **changes: Any) -> Scheme:
    named = {type(objective).__name__.lower(): objective for objective in objectives or (KD(),)}
    return Offline(net(width, **changes), Frozen(net(8, 1)), named)


SGD = Optimization("sgd", {"lr": 0.1})


def ready(
    scheme: Scheme, optimization: Optimization | Callable[[str], Optimization] = SGD, **options: Any
) -> Engine:
    scheme.prepare(batch())
    engine = Engine("cpu", **options)
    engine.setup(scheme, optimization if callable(optimization) else lambda learner: optimization)
    return engine


def test_one_process_without_torchrun() -> None:
    assert (world_size(), rank()) == (1, 0)
    rows = torch.ones(2)
    assert gather_rows(rows) is rows
    assert max_over_ranks(5, torch.device("cpu")) == 5


def test_a_parameter_of_two_learners_or_of_none() -> None:
    with pytest.raises(
        ValueError,
        match=r"parameter 'model\.stem\.weight' belongs to two learners, student and other",
    ):
        ready(Pair({"student": ("student", "objectives"), "other": ("other", "student")}))
    with pytest.raises(
        ValueError,
        match=(
            r"parameter 'other\.model\.stem\.weight' can be trained but belongs to no learner "
            r"\(student\)"
        ),
    ):
        ready(Pair({"student": ("student", "objectives")}))


def test_a_frozen_parameter_needs_no_learner() -> None:
    scheme = Pair({"student": ("student", "objectives")}, ("student",))
    scheme.other.requires_grad_(False)
    scheme.student.model.stem.requires_grad_(False)
    before = copy.deepcopy(scheme.state_dict())
    train_step(ready(scheme), scheme, [timed()])
    moved = {
        name for name, value in scheme.state_dict().items() if not torch.equal(value, before[name])
    }
    assert moved == {"student.model.head.weight", "student.model.head.bias"}


def test_a_learner_without_anything_to_train() -> None:
    scheme = Pair(OWN)
    scheme.other.requires_grad_(False)
    with pytest.raises(ValueError, match=r"learner 'other' \(other\) has no parameter to train"):
        ready(scheme)


def test_a_learner_that_is_no_module() -> None:
    with pytest.raises(AttributeError, match="othr"):
        ready(Pair({"student": ("student",), "other": ("othr",)}))


def test_one_loss_several_optimizers() -> None:
    scheme = Pair(OWN)
    before = copy.deepcopy(scheme.state_dict())
    engine = ready(
        scheme, lambda learner: Optimization("sgd", {"lr": 0.1 if learner == "student" else 0.2})
    )
    (scheme.objectives(scheme.student(batch()), {}, batch()).losses["cross_entropy"]).backward()
    grads = {
        name: parameter.grad
        for name, parameter in scheme.named_parameters()
        if name.startswith("student.")
    }
    scheme.zero_grad()
    assert set(train_step(engine, scheme, [timed()])) == {"student+other/cross_entropy"}
    after = scheme.state_dict()
    for name, grad in grads.items():
        assert torch.allclose(after[name], before[name] - 0.1 * grad, atol=1e-6), name
    assert not any(
        torch.equal(after[name], before[name]) for name in after if name.startswith("other.")
    )


def test_a_learner_that_no_gradient_reached() -> None:
    class Deaf(Pair):
        def step(self, batch: Batch) -> Iterator[Update]:
            yield Update({"cross_entropy": self.student(batch)["logits"].sum()}, "other")

    scheme = Deaf(OWN)
    with pytest.raises(
        RuntimeError,
        match="no gradient reached learner 'other': its losses do not depend on its parameters",
    ):
        train_step(ready(scheme), scheme, [timed()])


def test_gradients_of_other_learners_do_not_pile_up() -> None:
    ends = []
    for cleared in (True, False):
        scheme = Pair(OWN, ("student", "other"))
        engine = ready(scheme)
        for _ in range(3):
            train_step(engine, scheme, [timed()])
            if cleared:
                engine.clear()
        ends.append(torch.cat([parameter.detach().flatten() for parameter in scheme.parameters()]))
    assert torch.equal(*ends)
    engine.clear()
    assert all(parameter.grad is None for parameter in scheme.parameters())


def test_groups_by_pattern_have_options_of_their_own() -> None:
    groups = ({"match": "head.*", "lr": 0.5}, {"match": "*.bias", "weight_decay": 0.0})
    engine = ready(offline(), Optimization("adamw", {"lr": 0.1, "weight_decay": 0.3}, groups))
    shapes = [
        ([tuple(p.shape) for p in group["params"]], group["lr"], group["weight_decay"])
        for group in engine.optimizers["student"].param_groups
    ]
    assert shapes == [([(4, 6)], 0.1, 0.3), ([(5, 4), (5,)], 0.5, 0.3), ([(4,)], 0.1, 0.0)]


def test_a_pattern_that_matches_nothing() -> None:
    with pytest.raises(
        ValueError,
        match=(
            r"optimizer group 'heads\.\*' matches no parameter of learner 'student' \(student, "
            r"objectives\)"
        ),
    ):
        ready(offline(), Optimization("sgd", {"lr": 0.1}, ({"match": "heads.*"},)))


def tapped(*objectives: Objective) -> Scheme:
    scheme = offline(*objectives)
    for side in (scheme.student, scheme.teacher.net):  # type: ignore[union-attr]
        side.__init__(side.model, side.call, {"features": ["stem"]})  # type: ignore[misc]
    scheme.teacher = Frozen(scheme.teacher.net)  # type: ignore[union-attr]
    return scheme


def test_adapters_are_trained_without_weight_decay_and_are_not_clipped() -> None:
    scheme = tapped(FitNet())
    engine = ready(scheme, Optimization("adamw", {"lr": 0.1, "weight_decay": 0.3}), clip=1e-9)
    adapters = list(scheme.objectives.parameters())
    assert len(adapters) == 2
    assert engine.optimizers["student"].param_groups[1]["params"] == adapters
    assert engine.optimizers["student"].param_groups[1]["weight_decay"] == 0
    before = [parameter.clone() for parameter in scheme.parameters()]
    engine.optimizers["student"] = torch.optim.SGD(
        engine.optimizers["student"].param_groups[0]["params"] + adapters, 1.0
    )
    train_step(engine, scheme, [timed()])
    moved = {
        name: (new - old).abs().max()
        for old, (name, new) in zip(before, scheme.named_parameters(), strict=True)
    }
    assert moved["student.model.stem.weight"] < 1e-8
    assert moved["objectives.fitnet.adapters.0.project.weight"] > 1e-4


class Sampled(Offline):
    """Scheme whose student runs without gradients before its update."""

    def step(self, batch: Batch) -> Iterator[Update]:
        with torch.no_grad():
            self.student(batch)
        yield self.compute_losses(batch)


def test_a_pass_without_gradients_does_not_end_those_of_a_later_pass_in_bfloat16() -> None:
    scheme = Sampled(net(8), Frozen(net(8, 1)), {"kd": KD()})
    scheme.prepare(batch())
    engine = Engine("cpu", "bfloat16")
    engine.setup(scheme, lambda learner: Optimization("sgd", {"lr": 0.1}))
    train_step(engine, scheme, [timed()])
    assert all(parameter.grad is not None for parameter in scheme.student.parameters())


@pytest.mark.parametrize("is_lost", [True, False])
def test_autocast_keeps_no_converted_weights_where_these_lose_gradients(
    is_lost: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "CACHE_LOSES_GRADIENTS", is_lost)
    with Engine("cpu", "bfloat16").autocast():
        assert torch.is_autocast_cache_enabled() is not is_lost
        with torch.autocast("cpu", enabled=False):
            assert torch.is_autocast_cache_enabled() is not is_lost
    assert torch.is_autocast_cache_enabled()


def test_clips_as_torch_does() -> None:
    plain, clipped = offline(), offline()
    engine = ready(clipped, clip=0.01)
    plain.prepare(batch())
    plain.objectives(plain.student(batch()), plain.teacher_outputs(batch()), batch()).losses[
        "kd"
    ].backward()
    nn.utils.clip_grad_norm_(plain.student.parameters(), 0.01)
    train_step(engine, clipped, [timed()])
    for a, b in zip(plain.student.parameters(), clipped.student.parameters(), strict=True):
        assert torch.allclose(a - 0.1 * a.grad, b, atol=1e-7)


@pytest.mark.parametrize(
    ("optimization", "message"),
    [
        (
            Optimization("adamv"),
            r"No optimizer named 'adamv' in torch\.optim\. Did you mean adam, radam or nadam",
        ),
        (
            Optimization("sgd", {"lr": 0.1, "momentun": 0.9}),
            r"optimizer: sgd: .*unexpected keyword argument 'momentun'",
        ),
        (Optimization("sgd", {"lr": -1.0}), "Invalid learning rate: -1.0"),
        (Optimization("bitsanbytes:adam8bit"), "unknown library .* Did you mean bitsandbytes"),
    ],
)
def test_an_optimizer_that_there_is_not(optimization: Optimization, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ready(offline(), optimization)


def test_optimizers_in_any_case() -> None:
    assert isinstance(
        ready(offline(), Optimization("RMSprop", {"lr": 0.1})).optimizers["student"],
        torch.optim.RMSprop,
    )


def test_each_learner_has_an_optimizer_of_its_own_and_rates_move_together() -> None:
    scheme = Adversarial(net(4), Frozen(net(8, 1)), {"kd": KD()})
    engine = ready(
        scheme,
        lambda learner: Optimization("sgd", {"lr": {"student": 0.1, "critic": 0.02}[learner]}),
    )
    engine.set_learning_rates(lambda initial: initial * 0.5)
    engine.set_learning_rates(lambda initial: initial * 0.25)
    assert {name: one.param_groups[0]["lr"] for name, one in engine.optimizers.items()} == {
        "student": 0.025,
        "critic": 0.005,
    }


def test_precision() -> None:
    with pytest.raises(ValueError, match="precision: Expected float32 or bfloat16, got 'float16'"):
        Engine("cpu", "float16")
    scheme = offline(CrossEntropy(average="labelled"), KD())
    engine = ready(scheme, Optimization("adam", {"lr": 0.02}), precision="bfloat16")
    seen: list[torch.dtype] = []
    scheme.student.model.head.register_forward_hook(
        lambda _module, _args, output: seen.append(output.dtype)
    )
    losses = [
        sum(float(value) for value in train_step(engine, scheme, [timed()]).values())
        for _ in range(30)
    ]
    assert set(seen) == {torch.bfloat16}
    assert losses[-1] < 0.7 * losses[0]
    assert all(parameter.dtype == torch.float32 for parameter in scheme.parameters())


def test_the_share_of_each_micro_batch_in_each_loss() -> None:
    counts = [
        {"a": torch.tensor(3.0), "b": torch.tensor([1.0, 0.0])},
        {"a": torch.tensor(1.0), "b": torch.tensor([3.0, 0.0])},
    ]
    first, second = Engine("cpu").loss_weights(counts)
    assert {name: share.tolist() for name, share in first.items()} == {
        "a": [0.75],
        "b": [0.25, 0.0],
    }
    assert {name: share.tolist() for name, share in second.items()} == {
        "a": [0.25],
        "b": [0.75, 0.0],
    }


def test_d12_a_student_that_is_its_own_teacher() -> None:
    same = net(4)
    with pytest.raises(
        ValueError,
        match=(
            r"learner 'student' .* has no parameter to train: its weights are those of 'teacher', "
            r"which is not trained"
        ),
    ):
        ready(Offline(same, Frozen(same), {"kd": KD()}))
    with pytest.raises(
        ValueError,
        match=(
            r"learner 'student' .* has no parameter to train: its weights are those of "
            r"'teacher\.members\.1'"
        ),
    ):
        ready(Offline(same, Ensemble([net(8), same]), {"kd": KD()}))


def test_d12_a_teacher_that_would_learn_with_the_student() -> None:
    same = net(4)
    scheme = Offline(same, Frozen(same), {"kd": KD()})
    same.requires_grad_(True)
    with pytest.raises(
        ValueError,
        match=(
            r"parameter 'student\.model\.stem\.weight' is also a parameter of 'teacher', which "
            r"would be trained with it; use"
        ),
    ):
        ready(scheme)


def test_a_frozen_part_of_the_teacher_may_be_the_students_too() -> None:
    body, teacher = net(8).model, net(8, 1)
    body.head = teacher.model.head
    scheme = Offline(Net(body, call), Frozen(teacher), {"kd": KD()})
    before = copy.deepcopy(teacher.state_dict())
    train_step(ready(scheme), scheme, [timed()])
    assert not body.head.weight.requires_grad
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())


def test_no_gradient_leaks_into_a_teacher_that_is_asked_for_gradients() -> None:
    class Adversary(Offline):
        """Scheme that moves the batch in the direction that is difficult for the teacher."""

        def before_step(self, batch: Batch) -> Batch:
            x = batch["x"].clone().requires_grad_()
            (gradient,) = torch.autograd.grad(
                self.teacher_outputs({**batch, "x": x}, grad=True)["logits"].logsumexp(1).sum(), x
            )
            return batch | {"x": (x + gradient).detach()}

    scheme = Adversary(net(4), Frozen(net(8, 1)), {"kd": KD()})
    train_step(ready(scheme), scheme, [timed()])
    assert scheme.teacher is not None
    assert all(parameter.grad is None for parameter in scheme.teacher.parameters())


def test_a_teacher_of_ones_own_may_be_any_module() -> None:
    class Constant(Teacher):
        def forward(self, batch: Batch, grad: bool = False) -> dict[str, Tensor]:
            return {"logits": torch.eye(5)[batch["index"] % 5]}

    scheme = Offline(net(4), Constant(), {"kd": KD()})
    assert torch.isfinite(train_step(ready(scheme), scheme, [timed()])["student/kd"])


def test_moves_only_tensors() -> None:
    moved = Engine("cpu").move({"x": torch.ones(2), "name": "a", "list": [torch.ones(1)]})
    assert moved["name"] == "a"
    assert torch.equal(moved["x"], torch.ones(2))


def test_an_objective_of_ones_own_weight() -> None:
    class Odd(KD):
        def weight(self, batch: Batch) -> Tensor:
            return item_weights(batch) * (batch["index"] % 2 + 0.5)

    whole, parts = offline(Odd()), offline(Odd())
    one = train_step(ready(whole), whole, [timed()])["student/odd"]
    rows = [
        {key: value[part] if value.ndim else value for key, value in timed().items()}
        for part in (slice(0, 3), slice(3, 16))
    ]
    two = train_step(ready(parts), parts, rows)["student/odd"]
    assert torch.allclose(one, two, atol=1e-6)
    with torch.no_grad():
        fresh = offline(Odd())
        values = fresh.objectives["odd"](
            fresh.student(batch()), fresh.teacher_outputs(batch()), batch()
        )
    assert torch.allclose(one, mean(values, batch()["index"] % 2 + 0.5), atol=1e-6)


def test_what_takes_gradients_inside_the_graph_is_not_sharded() -> None:
    scheme = Offline(net(8), Frozen(net(8, 1)), Objectives({"kd": KD()}, balance=GradientNorm()))
    scheme.prepare(batch())
    engine = Engine("cpu")
    engine.shard = True
    with pytest.raises(
        ValueError,
        match=r"balance takes gradients inside the student's graph, .* set train\.shard: false",
    ):
        engine.setup(scheme, lambda _: Optimization("sgd", {"lr": 0.1}))


def test_what_reads_the_heads_of_members_is_not_sharded() -> None:
    student, teacher, sample_batch = sample_outputs()
    scheme = Offline(
        Net(nn.Linear(1, 1), lambda *_: student),
        Frozen(Net(nn.Linear(1, 1), lambda *_: teacher)),
        {"several": CAMKD()},
    )
    scheme.prepare(sample_batch)
    engine = Engine("cpu")
    engine.shard = True
    with pytest.raises(
        ValueError,
        match=r"objectives\.several reads weights of the members, .* set train\.shard: false",
    ):
        engine.setup(scheme, lambda _: Optimization("sgd", {"lr": 0.1}))
