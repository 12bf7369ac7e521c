"""Container of objectives: means, schedules, roles, and gathering of coupled items."""

from __future__ import annotations

from typing import ClassVar

import pytest
import torch
from torch import Tensor

from instil.core import Batch, Card, Objective, Objectives, Outputs, Schedule
from instil.items import Items


class Size(Objective):
    """Squares multiplied by an option."""

    card = Card("size")
    needs: ClassVar = {"student": (("logits", "tokens"),), "teacher": ()}

    def __init__(self, factor: float | Schedule = 1.0):
        super().__init__()
        self.factor = factor

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        return self.factor * student[self.reads["student"][0]].square().sum(1)


class Gram(Objective):
    """Scalar of a matrix product, which autocast would compute in half precision."""

    card = Card("gram", couples=True)

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        self.seen = student, teacher, batch
        values = student["logits"] @ student["logits"].T - teacher["logits"] @ teacher["logits"].T
        assert values.dtype == torch.float32
        return values.square().mean()


class LabelGram(Gram):
    items = Items(labelled=True)


def outputs(seed: int = 0, count: int = 4) -> Outputs:
    return {
        "logits": torch.randn(
            count, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float32
        )
    }


def at(progress: float) -> Batch:
    return {"x": torch.zeros(4, 2), "progress": torch.tensor(progress)}


def test_weight_and_option_follow_progress() -> None:
    objectives = Objectives({"size": Size(Schedule(1, 3))}, {"size": Schedule(0, 1, until=0.5)})
    plain = outputs()["logits"].square().sum(1).mean()
    for progress in (0.0, 0.25, 0.5, 1.0):
        loss = objectives(outputs(), {}, at(progress)).losses["size"]
        assert torch.allclose(loss, plain * (1 + 2 * progress) * min(1, 2 * progress))


def test_a_schedule_goes_back_where_progress_does() -> None:
    objectives = Objectives({"size": Size(Schedule(1, 3))})
    late, early = (
        objectives(outputs(), {}, at(progress)).losses["size"] for progress in (1.0, 0.0)
    )
    assert torch.allclose(late, 3 * early)


def test_weight_of_an_unknown_name() -> None:
    with pytest.raises(ValueError, match=r"weights: unknown objective 'sise'\. Did you mean size"):
        Objectives({"size": Size()}, {"sise": 1})


@pytest.mark.parametrize("name", ["half", "weights", "gather", "training", "named", "a.b", ""])
def test_a_name_that_a_module_needs_for_itself(name: str) -> None:
    with pytest.raises(
        ValueError,
        match=rf"objectives\.{name}: not allowed as the name of an objective",
    ):
        Objectives({name: Size()})


def test_an_uncounted_item_and_the_count() -> None:
    objectives = Objectives({"size": Size(), "other": Size(2.0)})
    batch = at(0) | {"valid": torch.tensor([True, False, True, True])}
    update = objectives(outputs(), {}, batch, "critic")
    counted = outputs()["logits"][batch["valid"]].square().sum(1).mean()
    assert torch.allclose(update.losses["size"], counted)
    assert torch.allclose(update.losses["other"], 2 * counted)
    assert update.learner == "critic"
    assert {name: float(count) for name, count in objectives.counts(batch).items()} == {
        "size": 3,
        "other": 3,
    }


def test_roles_are_chosen_best_first_and_a_miss_shows_both_lists() -> None:
    objectives = Objectives({"deep": Size()})
    objectives.build(outputs() | {"tokens": torch.ones(1, 5)}, {})
    assert objectives.reads("student") == {"logits"}
    objectives.build({"tokens": torch.ones(1, 5)}, {})
    assert objectives.reads("student") == {"tokens"}
    with pytest.raises(
        ValueError,
        match=(
            r"objectives\.deep: Size needs logits or tokens of the student, which outputs "
            r"embedding, features; name the"
        ),
    ):
        objectives.build({"features": torch.ones(1), "embedding": torch.ones(1)}, {})
    with pytest.raises(
        ValueError,
        match=(
            r"objectives\.g: Gram needs logits of the teacher, which outputs nothing \(there is no "
            r"teacher\)"
        ),
    ):
        Objectives({"g": Gram()}).build(outputs(), {})


def test_a_label_objective_needs_labels_and_skips_those_that_are_missing() -> None:
    objective = LabelGram()
    with pytest.raises(ValueError, match="LabelGram needs 'label' in the batch, which has x"):
        objective.weight({"x": torch.zeros(2, 2)})
    batch = {
        "x": torch.zeros(4, 2),
        "label": torch.tensor([1, -100, 2, 0]),
        "valid": torch.tensor([True, True, False, True]),
    }
    assert objective.weight(batch).tolist() == [1, 0, 0, 1]
    assert objective.weight(
        batch | {"label": torch.tensor([[1, 0], [-100, -100], [0, -100], [-100, 1]])}
    ).tolist() == [1, 0, 0, 1]


def test_what_couples_gets_the_counted_rows_and_of_the_batch_what_belongs_to_items() -> None:
    objective = LabelGram()
    batch = at(0.5) | {
        "label": torch.tensor([1, -100, 2, 0]),
        "valid": torch.tensor([True, True, False, True]),
        "index": torch.arange(4),
    }
    student, teacher = outputs(0), outputs(1)
    loss = Objectives({"gram": objective})(student, teacher, batch).losses["gram"]
    student_rows, teacher_rows, seen = objective.seen
    assert torch.equal(student_rows["logits"], student["logits"][[0, 3]])
    assert torch.equal(teacher_rows["logits"], teacher["logits"][[0, 3]])
    assert {key: value.tolist() for key, value in seen.items()} == {
        "label": [1, 0],
        "index": [0, 3],
        "progress": 0.5,
    }
    assert torch.allclose(
        loss,
        (
            student_rows["logits"] @ student_rows["logits"].T
            - teacher_rows["logits"] @ teacher_rows["logits"].T
        )
        .square()
        .mean(),
    )


def test_what_couples_gets_all_rows_without_waiting_where_all_count() -> None:
    objective = Gram()
    Objectives({"gram": objective})(outputs(0), outputs(1), at(0))
    assert len(objective.seen[0]["logits"]) == 4


def test_what_couples_flattens_positions_that_count() -> None:
    valid = torch.tensor([[True, True, False], [True, False, False]])
    student = {"logits": torch.randn(2, 3, 5)}
    objective = Gram()
    Objectives({"gram": objective})(student, student, {"x": torch.zeros(2, 3), "valid": valid})
    assert torch.equal(objective.seen[0]["logits"], student["logits"][valid])


def test_nothing_that_counts_is_zero_with_its_graph_where_it_couples() -> None:
    student = {"logits": torch.randn(4, 3, requires_grad=True)}
    batch = at(0) | {"valid": torch.zeros(4, dtype=torch.bool)}
    loss = Objectives({"gram": Gram()})(student, outputs(), batch).losses["gram"]
    assert float(loss.detach()) == 0
    assert torch.equal(torch.autograd.grad(loss, student["logits"])[0], torch.zeros(4, 3))


def test_the_rows_of_all_ranks_are_gathered() -> None:
    objective = Gram()
    objectives = Objectives({"gram": objective})
    objectives.gather = lambda rows: torch.cat([rows, rows + 1])
    objectives(outputs(), outputs(), at(0))
    assert torch.equal(
        objective.seen[0]["logits"], torch.cat([outputs()["logits"], outputs()["logits"] + 1])
    )


class CameraGram(Gram):
    """Gram matrices of the items of one camera."""

    batch_keys = ("camera",)


def test_declared_keys_are_selected_and_gathered_like_the_label() -> None:
    objective = CameraGram()
    objectives = Objectives({"gram": objective})
    objectives.gather = lambda rows: torch.cat([rows, rows + 10])
    batch = at(0) | {
        "camera": torch.tensor([3, 4, 5, 6]),
        "other": torch.zeros(4),
        "valid": torch.tensor([True, False, True, True]),
    }
    objectives(outputs(), outputs(), batch)
    entries = objective.seen[2]
    assert entries["camera"].tolist() == [3, 5, 6, 13, 15, 16]
    assert "other" not in entries


def test_a_declared_key_that_the_batch_does_not_have_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"^batch_keys: the batch has no tensor 'camera'\. Expected one"
    ):
        Objectives({"gram": CameraGram()})(outputs(), outputs(), at(0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_autocast_does_not_reach_a_loss(dtype: torch.dtype) -> None:
    student, teacher = ({"logits": outputs(seed)["logits"].to(dtype)} for seed in (0, 1))
    plain = Objectives({"gram": Gram()})(
        {"logits": student["logits"].float()}, {"logits": teacher["logits"].float()}, at(0)
    )
    with torch.autocast("cpu", torch.bfloat16):
        assert (student["logits"] @ student["logits"].T).dtype == torch.bfloat16
        loss = Objectives({"gram": Gram()})(student, teacher, at(0)).losses["gram"]
    assert loss.dtype == torch.float32
    assert torch.equal(loss, plain.losses["gram"])


def test_rows_are_kept_under_their_objective_and_handed_back() -> None:
    class Keeps(Size):
        def state_updates(
            self, student: Outputs, teacher: Outputs, batch: Batch
        ) -> dict[str, Tensor]:
            assert not torch.is_grad_enabled()
            return {"rows": student["logits"] * self.factor}

        def after_step(self, gathered_rows: dict[str, Tensor]) -> None:
            self.kept = gathered_rows

    objectives = Objectives({"a": Keeps(), "b": Keeps(2.0)})
    update = objectives(outputs(), {}, at(0))
    assert set(update.state_updates) == {"a.rows", "b.rows"}
    objectives.after_step(update.state_updates)
    assert torch.equal(objectives["b"].kept["rows"], 2 * outputs()["logits"])
