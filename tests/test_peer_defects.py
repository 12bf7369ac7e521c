"""Defects of other distillation libraries that could occur here too, each a test of ours.

Where the others stand: D2 ``test_train.py``; D3, D16, D17 ``objectives/logits/test_kd.py``; D7
``test_contracts.py``; D8, D14 ``core/test_taps.py``; D9 ``teachers/test_frozen.py``; D10
``objectives/logits/test_dkd.py``; D11 ``objectives/test_logit_objective.py``; D12
``test_engine.py``; D18 (code and paper differ) the golden cases and the cards. D13, a README with a
mislabelled column, has nothing to test: tables are made from cards.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from instil import catalogue, recipe
from instil.core import Batch, Net, Objectives, Outputs
from instil.data.loader import Loader
from instil.data.sources.digits import digits
from instil.objectives.logits.kd import KD
from instil.recipe.packaged import packaged_recipes
from instil.schemes.offline.offline import Offline
from instil.teachers.frozen import Frozen
from instil.testing import loss_and_gradient
from instil.testing.trials import sample_trial
from instil.training.fit import Training, fit
from tests.golden.__main__ import main
from tests.golden.test_runner import LOGITS, folder


@pytest.mark.parametrize(
    "name",
    [
        name
        for name in catalogue.names("objective")
        if catalogue.find("objective", name).needs["teacher"]
    ],
)
def test_d1_a_loss_is_not_zero_whatever_it_is_given_and_hears_student_and_teacher(
    name: str,
) -> None:
    torch.manual_seed(0)
    objective = catalogue.find("objective", name)()
    student, teacher, batch = sample_trial(objective, seed=1)
    Objectives({"it": objective}).build(student, teacher)
    loss, gradients = loss_and_gradient(objective, student, teacher, batch)
    assert loss.abs() > 1e-6
    assert any(
        gradient.abs().sum() > 0
        for role, gradient in gradients.items()
        if role.partition(".")[0] in student
    )
    other_student, other_teacher, _ = sample_trial(objective, seed=2)
    assert not torch.allclose(
        loss, loss_and_gradient(objective, student, other_teacher, batch)[0], rtol=1e-4
    )
    assert not torch.allclose(
        loss, loss_and_gradient(objective, other_student, teacher, batch)[0], rtol=1e-4
    )


def test_d4_d15_teacher_and_student_see_the_same_view_which_changes_in_each_epoch() -> None:
    seen: dict[str, list[Tensor]] = {"student": [], "teacher": []}

    def sees(side: str) -> Net:
        def call(model: nn.Module, batch: Batch) -> Outputs:
            if "step" in batch:  # not the dry run
                seen[side].append(batch["image"])
            return {"logits": model(batch["image"].flatten(1))}

        return Net(nn.Linear(64, 10), call)

    def augment(batch: Batch) -> Batch:
        return batch | {"image": batch["image"] + torch.rand_like(batch["image"])}

    loader = Loader(digits().train, 256, augment=augment)
    scheme = Offline(sees("student"), Frozen(sees("teacher")), {"kd": KD()})
    fit(scheme, loader, Training(epochs=2, device="cpu"))
    assert len(seen["student"]) == 2 * len(loader)
    assert all(
        student_view is teacher_view
        for student_view, teacher_view in zip(seen["student"], seen["teacher"], strict=True)
    )
    first, second = (
        torch.cat(seen["teacher"][i : i + len(loader)]).flatten() for i in (0, len(loader))
    )
    assert not torch.equal(first.sort().values, second.sort().values)


@pytest.mark.parametrize("missing", ["loss", "student.logits", "grad.student.logits"])
def test_d5_the_golden_runner_fails_where_a_number_is_missing_and_writes_nothing(
    missing: str, tmp_path: Path
) -> None:
    path = folder(tmp_path)
    with np.load(tmp_path / "one.npz") as file:
        arrays = {name: file[name] for name in file.files}
    if missing == "grad.student.logits":  # under a name that no input has
        arrays["grad.student.logitz"] = LOGITS
    del arrays[missing]
    np.savez(tmp_path / "one.npz", **arrays)
    before = {file.name: hashlib.sha256(file.read_bytes()).digest() for file in tmp_path.iterdir()}
    assert main([path]) == 1
    assert {
        file.name: hashlib.sha256(file.read_bytes()).digest() for file in tmp_path.iterdir()
    } == before


@pytest.mark.parametrize("name", sorted(packaged_recipes()))
def test_d6_every_shipped_recipe_loads_and_its_methods_can_be_made(name: str) -> None:
    loaded = recipe.load(name)
    for stage in recipe.stages(loaded):
        assert len(recipe.build_objectives(stage.objectives)) == len(stage.objectives)
        catalogue.find("scheme", stage.scheme.type)
        catalogue.find("task", stage.task.name)
    assert recipe.build(loaded.model_dump(mode="json")) == loaded


def test_d6_there_are_shipped_recipes() -> None:
    assert packaged_recipes()
