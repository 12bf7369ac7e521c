"""Selection of one of several teachers for each sample."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from instil import recipe as recipes
from instil.core import Batch, Net
from instil.experiment.experiment import Experiment
from instil.experiment.teachers import teacher_training_data
from instil.objectives.logits.ebkd import EBKD
from instil.objectives.logits.kd import KD
from instil.schemes.offline.offline import Offline
from instil.teachers.ema import Ema
from instil.teachers.frozen import Frozen
from instil.teachers.routed import By, Routed
from instil.testing import check_teacher
from tests.nets import batch, net
from tests.schemes import texts


def with_domain() -> Batch:
    return batch() | {"domain": torch.arange(16) % 2, "teacher_id": torch.arange(16) // 8}


@pytest.mark.parametrize("by", ["entropy", "label", "domain", "teacher_id"])
def test_contracts(by: By) -> None:
    check_teacher(lambda: Routed([net(seed=1), net(4, seed=2)], by), with_domain())


class Constant(nn.Module):
    """Network with constant outputs."""

    def __init__(self, *rows: list[float]):
        super().__init__()
        self.answer = nn.Parameter(torch.tensor(rows))

    def forward(self, _x: Tensor) -> Tensor:
        return self.answer * 1


ONE = Constant([4.0, 0, 0], [0.0, 1, 0], [0.0, 0, 9])
TWO = Constant([2.0, 0, 0], [0.0, 3, 0], [0.0, 0, 1])


@pytest.mark.parametrize(
    ("by", "more", "expected"),
    [
        ("entropy", {}, [0, 1, 0]),
        (
            "label",
            {"label": torch.tensor([1, 1, -100])},
            [1, 1, 0],
        ),  # of the last the label is not known: the surest
        ("domain", {"domain": torch.tensor([1, 0, 1])}, [1, 0, 1]),
    ],
)
def test_who_answers(by: By, more: dict[str, Any], expected: list[int]) -> None:
    outputs = Routed([ONE, TWO], by)({"x": torch.zeros(3, 2), **more})
    assert outputs["member"].tolist() == expected
    for n, member in enumerate(expected):
        assert torch.equal(outputs["logits"][n], (ONE, TWO)[member].answer[n])
    assert torch.equal(outputs["members"][1]["logits"], TWO.answer)


def test_positions_are_routed_one_by_one_and_domains_by_the_sample() -> None:
    def pixels(model: nn.Module, samples: Batch) -> dict[str, Tensor]:
        return {"logits": model(samples["x"]).view(1, 3, 3)}

    members = [Net(ONE, pixels), Net(TWO, pixels)]
    assert Routed(members)({"x": torch.zeros(1, 2)})["member"].tolist() == [[0, 1, 0]]
    labels = {"x": torch.zeros(1, 2), "label": torch.tensor([[1, 1, -100]])}
    assert Routed(members, "label")(labels)["member"].tolist() == [[1, 1, 0]]
    assert Routed(members, "domain")({"x": torch.zeros(1, 2), "domain": torch.tensor([1])})[
        "member"
    ].tolist() == [[1, 1, 1]]


def test_members_may_be_teachers_of_any_kind() -> None:
    assert [
        type(member) for member in Routed([Ema(net()), Frozen(net(seed=1)), net(seed=2)]).members
    ] == [Ema, Frozen, Frozen]


def test_a_student_learns_from_it_and_from_its_members() -> None:
    scheme = Offline(net(4), Routed([net(8, 1), net(6, 2)]), {"kd": KD(), "ebkd": EBKD()})
    scheme.prepare(batch())
    (update,) = scheme.step(batch())
    assert all(loss > 0 for loss in update.losses.values())


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="routed teachers need at least one member"):
        Routed([])
    with pytest.raises(
        ValueError, match=r"ensemble\.by: unknown value.*got 'entropie'. Did you mean entropy"
    ):
        Routed([net()], "entropie")  # type: ignore[arg-type]
    with pytest.raises(
        ValueError,
        match=r"ensemble\.by: members are chosen by 'domain'\. Expected this key .*, got x, label",
    ):
        Routed([net()], "domain")({key: batch()[key] for key in ("x", "label")})
    domains = batch() | {"domain": torch.full((len(batch()["x"]),), 2)}
    with pytest.raises(ValueError, match=r"ensemble\.by: domain of row 0 .* from 0 to 1, got 2"):
        Routed([net(), net()], "domain")(domains)
    with pytest.raises(ValueError, match="member 0 gives features, and no logits to choose from"):
        Routed([Net(net().model, lambda model, samples: {"features": model(samples["x"])})])(
            batch()
        )


def test_each_text_is_answered_by_the_teacher_of_its_domain() -> None:
    members, domain = [texts.net(seed=1), texts.net(seed=2)], torch.arange(16) % 2
    rows = texts.prompts() | {"domain": domain}
    outputs = Routed(members, "domain")(rows)
    logits = torch.stack([member(rows)["logits"] for member in members])
    assert torch.equal(outputs["logits"], logits[domain, torch.arange(16)])
    assert torch.equal(outputs["prediction"], outputs["logits"].argmax(-1))


def test_a_recipe_teaches_each_teacher_its_own_domain() -> None:
    small = [
        f"{where}.{what}"
        for where in ("data", "teacher.0.data", "teacher.1.data")
        for what in ("rows=64", "held_out=8")
    ]
    path = Path(__file__).parents[2] / "src/instil/recipes" / "language" / "routed_domains.yaml"
    recipe = recipes.load(path, [*small, "seeds=[0]"])
    experiment = Experiment.from_recipe(recipe)
    for index, spec in enumerate(recipe.teachers):
        rows = teacher_training_data(experiment, spec, index).splits.train
        assert torch.equal(
            rows.label,
            experiment.splits.train.label[experiment.splits.train.tensors["domain"] == index],
        )
