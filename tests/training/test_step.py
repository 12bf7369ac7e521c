"""Training step: equal micro-batches, counts of losses, no constant and no NaN losses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from instil.core import Average, Batch, Scheme, Update, item_weights, mean
from instil.engine import Engine, Optimization
from instil.objectives.labels.cross_entropy import CrossEntropy
from instil.objectives.logits.kd import KD
from instil.schemes.offline.offline import Offline
from instil.teachers.frozen import Frozen
from instil.training.monitor import LossMonitor
from instil.training.step import train_step
from tests.nets import batch, net, timed


class Free(Scheme):
    """Scheme whose updates are defined by a test: ``plan(scheme, batch)``."""

    def __init__(self, plan: Any, counts: tuple[str, ...] = ("loss",)):
        super().__init__(net(4), None, {"cross_entropy": CrossEntropy()})
        self.other = net(4, 1)
        self.learners["other"] = ("other",)
        self.plan, self.counted, self.kept = plan, counts, {}

    def counts(self, batch: Batch) -> dict[str, Tensor]:
        return dict.fromkeys(self.counted, item_weights(batch).sum())

    def step(self, batch: Batch) -> Iterator[Update]:
        yield from self.plan(self, batch)

    def after_step(self, gathered_rows: dict[str, Tensor]) -> None:
        self.kept = gathered_rows


def loss(scheme: Free, batch: Batch, of: str = "student") -> Tensor:
    return mean(getattr(scheme, of)(batch)["logits"].square().sum(1), item_weights(batch))


def stepped(scheme: Scheme, *batches: Batch) -> dict[str, Tensor]:
    torch.manual_seed(0)
    scheme.prepare(batch())
    engine = Engine("cpu")
    engine.setup(scheme, lambda learner: Optimization("sgd", {"lr": 0.1}))
    return train_step(engine, scheme, list(batches) or [timed()])


def test_micro_batches_that_disagree_about_the_learner() -> None:
    def plan(scheme: Free, batch: Batch) -> Iterator[Update]:
        learner = "student" if int(batch["index"][0]) == 0 else "other"
        yield Update({"loss": loss(scheme, batch, learner)}, learner)

    late = timed() | {"index": torch.arange(16) + 5}
    with pytest.raises(
        RuntimeError,
        match=(
            "micro-batch 1 updates other, micro-batch 0 student; every one must yield the same "
            "learners"
        ),
    ):
        stepped(Free(plan), timed(), late)


@pytest.mark.parametrize("more", [0, 1])
def test_micro_batches_that_disagree_about_the_number_of_updates(more: int) -> None:
    def plan(scheme: Free, batch: Batch) -> Iterator[Update]:
        yield Update({"loss": loss(scheme, batch)})
        if (int(batch["index"][0]) == 0) == bool(more):
            yield Update({"loss": loss(scheme, batch)})

    late = timed() | {"index": torch.arange(16) + 5}
    with pytest.raises(
        RuntimeError,
        match=r"micro-batch 1 updates (student|None), micro-batch 0 (student|None); every one must",
    ):
        stepped(Free(plan), timed(), late)


def test_a_loss_without_a_count() -> None:
    with pytest.raises(
        RuntimeError,
        match=r"loss 'extra' has no count: the scheme's counts\(batch\) must give one for it",
    ):
        stepped(
            Free(
                lambda scheme, batch: [
                    Update({"loss": loss(scheme, batch), "extra": loss(scheme, batch)})
                ]
            )
        )


def test_a_count_without_a_loss() -> None:
    with pytest.raises(
        RuntimeError, match="Free counts items of 'extra', but no update has that loss"
    ):
        stepped(
            Free(lambda scheme, batch: [Update({"loss": loss(scheme, batch)})], ("loss", "extra"))
        )


def test_a_constant_loss() -> None:
    message = (
        "loss 'loss' is constant: it does not depend on anything that learner 'student' trains"
    )
    with pytest.raises(RuntimeError, match=message):
        stepped(Free(lambda scheme, batch: [Update({"loss": loss(scheme, batch).detach()})]))


def test_a_loss_of_another_learner() -> None:
    with pytest.raises(RuntimeError, match="no gradient reached learner 'student'"):
        stepped(Free(lambda scheme, batch: [Update({"loss": loss(scheme, batch, "other")})]))


def test_a_count_for_each_update_of_a_loss() -> None:
    """The second update is the mean over the first half of each sample's items alone."""

    class Turns(Free):
        def counts(self, batch: Batch) -> dict[str, Tensor]:
            return {
                "loss": torch.stack([item_weights(batch).sum(), (batch["index"] < 4).float().sum()])
            }

    def plan(scheme: Free, batch: Batch) -> Iterator[Update]:
        yield Update({"loss": loss(scheme, batch)})
        yield Update(
            {
                "loss": mean(
                    scheme.student(batch)["logits"].square().sum(1), (batch["index"] < 4).float()
                )
            }
        )

    whole, parts = Turns(plan), Turns(plan)
    pieces = [
        {key: value[rows] if value.ndim else value for key, value in timed().items()}
        for rows in (slice(0, 3), slice(3, 9), slice(9, 16))
    ]
    one, two = stepped(whole), stepped(parts, *pieces)
    assert torch.allclose(one["student/loss"], two["student/loss"], atol=1e-6)
    for a, b in zip(whole.parameters(), parts.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-6)


def test_rows_come_back_from_all_micro_batches_in_order() -> None:
    scheme = Free(
        lambda scheme, batch: [
            Update({"loss": loss(scheme, batch)}, state_updates={"index": batch["index"]})
        ]
    )
    pieces = [
        {key: value[rows] if value.ndim else value for key, value in timed().items()}
        for rows in (slice(0, 3), slice(3, 16))
    ]
    stepped(scheme, *pieces)
    assert scheme.kept["index"].tolist() == list(range(16))


def test_a_batch_of_nothing_leaves_the_weights_and_costs_zero() -> None:
    scheme = Offline(net(4), Frozen(net(8, 1)), {"cross_entropy": CrossEntropy(), "kd": KD()})
    before = [parameter.clone() for parameter in scheme.parameters()]
    losses = stepped(scheme, timed() | {"valid": torch.zeros(16, dtype=torch.bool)})
    assert [float(value) for value in losses.values()] == [0, 0]
    assert all(torch.equal(a, b) for a, b in zip(before, scheme.parameters(), strict=True))


def test_before_step_makes_what_the_step_sees() -> None:
    class Doubles(Free):
        def before_step(self, batch: Batch) -> Batch:
            return batch | {"x": 2 * batch["x"]}

    seen: list[Tensor] = []

    def plan(scheme: Free, batch: Batch) -> Iterator[Update]:
        seen.append(batch["x"])
        yield Update({"loss": loss(scheme, batch)})

    stepped(Doubles(plan))
    assert torch.equal(seen[0], 2 * timed()["x"])


def test_monitor_names_step_objective_and_samples_one_step_late() -> None:
    monitor = LossMonitor(Engine("cpu"))
    monitor.update(
        {"student/kd": torch.tensor(1.0), "student/ce": torch.tensor(torch.nan)},
        7,
        [batch(3), batch(2) | {"index": torch.tensor([8, 9])}],
    )
    with pytest.raises(
        RuntimeError, match=r"step 7: loss 'student/ce' is nan; batch indices: 0, 1, 2, 8, 9$"
    ):
        monitor.check()
    monitor.check()


def test_monitor_without_index_and_with_many_indices() -> None:
    monitor = LossMonitor(Engine("cpu"))
    monitor.update({"a": torch.tensor(torch.inf)}, 0, [{}])
    with pytest.raises(
        RuntimeError, match=r"loss 'a' is inf; batch indices: unknown \(the batch has no 'index'\)"
    ):
        monitor.update({"a": torch.tensor(0.0)}, 1, [{}])
    monitor = LossMonitor(Engine("cpu"))
    monitor.update({"a": torch.tensor(-torch.inf)}, 0, [batch(100)])
    with pytest.raises(
        RuntimeError, match=r"loss 'a' is -inf; batch indices: 0, 1, .*, 63 \.\.\.$"
    ):
        monitor.means()


def test_monitor_returns_means_per_step_since_the_last_call() -> None:
    monitor = LossMonitor(Engine("cpu"))
    for step in range(4):
        monitor.update({"a": torch.tensor(float(step))}, step, [])
    assert monitor.means() == {"a": 1.5}
    assert monitor.means() == {}
    monitor.update({"a": torch.tensor(5.0)}, 4, [])
    assert monitor.means() == {"a": 5.0}


def _weights_after_a_step(average: Average, *batches: Batch) -> Tensor:
    objectives = {"cross_entropy": CrossEntropy(average=average), "kd": KD()}
    scheme = Offline(net(4), Frozen(net(8, 1)), objectives)
    stepped(scheme, *batches)
    return torch.cat([parameter.detach().flatten() for parameter in scheme.student.parameters()])


@pytest.mark.parametrize("average", ["batch", "labelled"])
def test_label_loss_does_not_depend_on_which_micro_batch_has_the_labels(average: Average) -> None:
    whole = timed()
    whole["label"] = torch.where(torch.arange(16) < 3, torch.arange(16) % 5, -100)
    # All three labels are in the first of the micro-batches; the others have none.
    pieces = []
    for rows in torch.arange(16).split([5, 1, 10]):
        own = {key: whole[key][rows] for key in ("x", "label", "index")}
        pieces.append(whole | own)
    expected = _weights_after_a_step(average, whole)
    torch.testing.assert_close(_weights_after_a_step(average, *pieces), expected)
    other: Average = "labelled" if average == "batch" else "batch"
    assert not torch.allclose(_weights_after_a_step(other, whole), expected)


def test_label_loss_over_the_batch_is_the_labelled_share_of_that_over_the_labels() -> None:
    whole = timed()
    whole["label"] = torch.where(torch.arange(16) < 4, 1, -100)
    losses = []
    for average in ("batch", "labelled"):
        objectives = {"cross_entropy": CrossEntropy(average=average), "kd": KD()}
        scheme = Offline(net(4), Frozen(net(8, 1)), objectives)
        losses.append(stepped(scheme, whole)["student/cross_entropy"])
    torch.testing.assert_close(losses[0], losses[1] * 4 / 16)


def test_batch_without_any_label_is_a_step_of_the_other_losses() -> None:
    whole = timed()
    whole["label"] = torch.full((16,), -100)
    losses = stepped(
        Offline(net(4), Frozen(net(8, 1)), {"cross_entropy": CrossEntropy(), "kd": KD()}), whole
    )
    assert losses["student/cross_entropy"] == 0
    assert losses["student/kd"] > 0
