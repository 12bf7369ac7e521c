from __future__ import annotations

from typing import ClassVar

import pytest
import torch
from torch import Tensor

from instil.core import UNLABELLED, Batch, Card, Objective, Objectives, Outputs
from instil.items import Items
from instil.testing import check_objective, sample_outputs
from instil.testing.sample_sides import NUM_LAYERS
from instil.testing.samples import NUM_MEMBERS, TASKS
from instil.testing.structures import scale_tensors, select_rows, with_noise


@pytest.mark.parametrize("task", TASKS)
def test_every_task_has_rows_alike_and_repeats(task: str) -> None:
    one, two = sample_outputs(5, task=task), sample_outputs(5, task=task)
    for first, second in zip(one, two, strict=True):
        assert list(first) == list(second)
    student, _, batch = one
    role = next(iter(student))
    assert torch.equal(student[role], two[0][role])
    assert len(student[role]) == len(batch["label"]) == 5


def test_text_is_as_transformers_returns_it() -> None:
    student, teacher, batch = sample_outputs(task="text_classification")
    for side, outputs in (("student", student), ("teacher", teacher)):
        assert len(outputs["hidden_states"]) == NUM_LAYERS[side] + 1
        assert len(outputs["attentions"]) == len(outputs["queries"]) == NUM_LAYERS[side]
        assert torch.allclose(outputs["attentions"][0].sum(-1), torch.ones(()))
    mask = batch["attention_mask"]
    assert mask.shape == student["hidden_states"][0].shape[:2]
    assert (mask.diff(dim=1) <= 0).all(), "padding is on the right"
    assert 0 < mask.float().mean() < 1


def test_pixels_and_images_may_have_no_label() -> None:
    student, _, batch = sample_outputs(6, task="segmentation")
    assert batch["label"].shape == student["logits"].shape[:-1]
    missing = (batch["label"] == UNLABELLED).flatten(1)
    assert missing.all(1).tolist() == [True, False, False] * 2
    assert missing[1].any()
    assert len(batch["label"][1].unique()) > 3


def test_rows_of_a_graph_are_the_edges_among_them() -> None:
    _, _, batch = sample_outputs(10, task="node_classification")
    edges = {tuple(edge) for edge in batch["edge_index"].T.tolist()}
    assert {(1, 5), (4, 6), (7, 8)} <= edges
    assert all((a < 7) == (b < 7) and min(a, b) > 0 for a, b in edges), "no edge crosses a cut"
    assert any((b, a) not in edges for a, b in edges), "a direction matters"
    rows = [6, 0, 2, 4]
    for chosen in (torch.tensor(rows), torch.isin(torch.arange(10), torch.tensor(rows))):
        order = rows if chosen.dtype == torch.int64 else sorted(rows)
        edges_of_rows = {
            tuple(edge) for edge in select_rows(batch, chosen)["edge_index"].T.tolist()
        }
        assert {(order[a], order[b]) for a, b in edges_of_rows} == {
            (a, b) for a, b in edges if {a, b} <= set(rows)
        }


def test_unknown_task() -> None:
    with pytest.raises(
        ValueError,
        match=r"task 'clasification' has no sample outputs\. Did you mean classification",
    ):
        sample_outputs(task="clasification")


def test_shared_roles_have_no_rows() -> None:
    outputs = {
        "logits": torch.zeros(4, 3),
        "head": (torch.ones(3, 5), torch.ones(3)),
        "logit_scale": torch.ones(1),
    }
    rows = torch.tensor([True, False, False, True])
    for changed in (select_rows(outputs, rows), with_noise(outputs, rows)):
        assert changed["head"] is outputs["head"]
        assert changed["logit_scale"] is outputs["logit_scale"]
    assert select_rows(outputs, rows)["logits"].shape == (2, 3)
    assert with_noise(outputs, rows)["logits"].abs().sum(1).bool().equal(rows)


class Through(Objective):
    """Objective on student embeddings through a shared head; ``couples`` gathers the items."""

    needs: ClassVar = {"student": (("head",), ("embedding",)), "teacher": (("logits",),)}
    card = Card("through", zero_at_match=False, tasks=("through",))

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        weight, bias = student["head"]
        values = (student["embedding"] @ weight.T + bias - teacher["logits"]).square().mean(1)
        return values.mean() if self.card.couples else values


class Together(Through):
    card = Card("together", zero_at_match=False, tasks=("through",), couples=True)


@pytest.mark.parametrize("kind", [Through, Together])
def test_a_shared_role_keeps_the_contracts(
    kind: type[Objective], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, more = TASKS["classification"]

    def make(draw: object, side: str) -> Outputs:
        outputs = plain(draw, side)  # type: ignore[arg-type]
        width = outputs["embedding"].shape[1]
        return outputs | {
            "head": (
                torch.linspace(-1, 1, 7 * width).view(7, width).to(outputs["logits"].dtype),
                torch.zeros(7),
            )
        }

    monkeypatch.setitem(TASKS, "through", (make, more))
    check_objective(kind)


def test_where_items_couple_a_shared_role_is_not_gathered() -> None:
    objectives = Objectives({"together": Together()})
    objectives.gather = lambda rows: torch.cat([rows, rows])
    student = {"head": (torch.ones(7, 2), torch.zeros(7)), "embedding": torch.ones(3, 2)}
    objectives.build(student, {"logits": torch.ones(3, 7)})
    loss = objectives(student, {"logits": torch.ones(3, 7)}, {"index": torch.arange(3)}).losses[
        "together"
    ]
    assert float(loss) == 1


class Slopes(Objective):
    card = Card("slopes", finite_logits=True)
    needs: ClassVar = dict.fromkeys(
        ("student", "teacher"), (("logits",), ("features",), ("input",))
    )
    items = Items(per_sample=True)

    def forward(
        self, student: dict[str, Tensor], teacher: dict[str, Tensor], batch: Batch
    ) -> Tensor:
        assert student["input"] is teacher["input"]
        by_stage, by_input = (
            [
                torch.autograd.grad(side["logits"].square().sum(), select(side), create_graph=True)[
                    0
                ]
                for side in (student, teacher)
            ]
            for select in (lambda side: side["features"][-1], lambda side: side["input"])
        )
        assert all(slope.abs().sum() != 0 for slope in (*by_stage, *by_input))
        return (by_input[0] - by_input[1].detach()).flatten(1).square().sum(1)


def test_what_takes_gradients_is_given_outputs_that_hang_on_the_input() -> None:
    check_objective(Slopes)


def test_members_are_cut_with_their_teacher_and_keep_their_heads() -> None:
    _, teacher, _ = sample_outputs()
    assert len(teacher["members"]) == NUM_MEMBERS
    rows = torch.tensor([5, 2])
    for cut, whole in zip(select_rows(teacher, rows)["members"], teacher["members"], strict=True):
        assert torch.equal(cut["logits"], whole["logits"][rows])
        assert torch.equal(cut["features"][1], whole["features"][1][rows])
        assert cut["head"] is whole["head"]
    assert torch.equal(
        scale_tensors(teacher, 2.0)["members"][1]["logits"], 2 * teacher["members"][1]["logits"]
    )


class Members(Objective):
    """Coupled objective: difference to the mean of all members."""

    needs: ClassVar = {"student": (("logits",),), "teacher": (("members",),)}
    card = Card("members", couples=True)

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        assert all(member["head"][0].shape == (7, 16) for member in teacher["members"])
        return (
            (
                student["logits"]
                - torch.stack([member["logits"] for member in teacher["members"]]).mean(0)
            )
            .square()
            .mean()
        )


def test_members_are_gathered_with_the_batch() -> None:
    student, teacher, batch = sample_outputs()
    objectives = Objectives({"it": Members()})
    objectives.build(student, teacher)
    valid = batch | {"valid": torch.arange(8) < 3}
    loss = objectives(student, teacher, valid).losses["it"]
    few = torch.arange(3)
    assert torch.allclose(
        loss,
        objectives(
            select_rows(student, few), select_rows(teacher, few), select_rows(batch, few)
        ).losses["it"],
    )
    objectives.gather = lambda rows: torch.cat([rows, rows])
    assert torch.allclose(objectives(student, teacher, valid).losses["it"], loss)
