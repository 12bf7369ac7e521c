"""Training inputs of all arms.

Arms have equal initial weights and numbers of steps, their own labels and images, and the weights
of the last epoch.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from instil.core import UNLABELLED, Batch, Scheme
from instil.data.sources.digits import digits
from instil.engine.state import set_seed
from instil.experiment.cached_teacher import CachedTeacher
from instil.experiment.experiment import Experiment
from instil.experiment.networks import build_network
from instil.experiment.teachers import as_teacher
from instil.plan import fitting as module
from instil.schemes.offline.offline import Offline
from instil.tasks.classification import Classification
from tests.experiment.small import lines, recipe, result, run_of


@dataclass
class Spied:
    """Arguments and result of one call of ``fit``."""

    scheme: Scheme
    start: dict[str, Tensor]
    batches: list[Batch] = field(default_factory=list)
    modes: list[tuple[bool, bool]] = field(default_factory=list)
    steps: int = 0
    end: dict[str, Tensor] = field(default_factory=dict)


class Seen:
    """Loader that records its batches."""

    def __init__(self, loader: Any, spied: Spied):
        self.loader, self.spied, self.epoch = loader, spied, -1

    def __len__(self) -> int:
        return len(self.loader)

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch
        self.loader.set_epoch(epoch)

    def __iter__(self) -> Iterator[Batch]:
        for batch in self.loader:
            if self.epoch >= 0:  # not the look before the first step
                self.spied.batches.append(batch)
                scheme = self.spied.scheme
                teacher = scheme.teacher is not None and any(
                    part.training for part in scheme.teacher.modules()
                )
                self.spied.modes.append((scheme.student.training, teacher))
            yield batch


@pytest.fixture
def fits(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Spied]:
    """Return every ``fit`` of a run by arm, seed and stage."""
    monkeypatch.setenv("INSTIL_CACHE", str(tmp_path / "cache"))
    original, records = module.fit, {}

    def fit(
        scheme: Scheme,
        loader: Any,
        training: Any,
        *,
        checkpoint: Path,
        on_step: Any,
        **options: Any,
    ) -> Any:
        spied = records[checkpoint.stem] = Spied(scheme, copy.deepcopy(scheme.student.state_dict()))

        def count(clock: Any) -> None:
            spied.steps = clock.step
            on_step(clock)

        answer = original(
            scheme, Seen(loader, spied), training, checkpoint=checkpoint, on_step=count, **options
        )
        spied.end = copy.deepcopy(answer.net.state_dict())
        return answer

    monkeypatch.setattr(module, "fit", fit)
    return records


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return all(torch.equal(value, other[name]) for name, value in one.items())


def indices(spied: Spied) -> set[int]:
    return {int(index) for batch in spied.batches for index in batch["index"]}


BASELINES = ("alone", "label_smoothing", "pseudo_labels")


def test_all_arms_of_a_seed_have_the_same_start_and_number_of_steps(
    fits: dict[str, Spied], tmp_path: Path
) -> None:
    run_of(recipe(), tmp_path / "run")
    for seed in (0, 1):
        distilled = fits[f"distilled-{seed}-stage0"]
        assert distilled.steps == 2 * 4
        for name in BASELINES:
            spied = fits[f"{name}-{seed}-stage0"]
            assert same(spied.start, distilled.start), name
            assert spied.steps == distilled.steps
            assert not same(spied.end, distilled.end)
    assert not same(fits["distilled-0-stage0"].start, fits["distilled-1-stage0"].start)


def test_who_sees_which_images_and_labels(fits: dict[str, Spied], tmp_path: Path) -> None:
    run_of(recipe("seeds=[0]"), tmp_path / "run")
    truth = digits().train.label
    labelled = {
        int(i)
        for b in fits["distilled-0-stage0"].batches
        for i, y in zip(b["index"], b["label"], strict=True)
        if y != UNLABELLED
    }
    assert len(labelled) == 100
    assert indices(fits["distilled-0-stage0"]) == set(range(1000))
    assert indices(fits["pseudo_labels-0-stage0"]) == set(range(1000))
    for name in ("alone", "label_smoothing"):
        assert indices(fits[f"{name}-0-stage0"]) == labelled
        assert all(
            (batch["label"] == truth[batch["index"]]).all()
            for batch in fits[f"{name}-0-stage0"].batches
        )
    assert all(
        (batch["label"] == truth[batch["index"]]).all() for batch in fits["teacher-stage0"].batches
    ), "the teacher sees every label"
    teacher = fits["teacher-stage0"].scheme.student.eval()
    for batch in fits["pseudo_labels-0-stage0"].batches:
        with torch.no_grad():
            guess = teacher({"image": digits().train.image[batch["index"]]})["logits"].argmax(-1)
        is_labelled = torch.tensor([int(i) in labelled for i in batch["index"]])
        assert torch.equal(batch["label"], torch.where(is_labelled, truth[batch["index"]], guess))


def test_distilled_batches_are_complete_and_reshuffled_each_epoch(
    fits: dict[str, Spied], tmp_path: Path
) -> None:
    run_of(recipe("seeds=[0]", "baselines=[]"), tmp_path / "run")
    batches = fits["distilled-0-stage0"].batches
    assert [len(batch["index"]) for batch in batches] == [250] * 8
    assert [int(batch["view"][0]) for batch in batches] == [0] * 4 + [1] * 4
    first, second = (
        torch.cat([batch["index"] for batch in part]) for part in (batches[:4], batches[4:])
    )
    assert sorted(first.tolist()) == sorted(second.tolist()) == list(range(1000))
    assert not torch.equal(first, second)


def test_different_seeds_have_different_labels(fits: dict[str, Spied], tmp_path: Path) -> None:
    run_of(recipe("baselines=[alone]"), tmp_path / "run")
    assert indices(fits["alone-0-stage0"]) != indices(fits["alone-1-stage0"])


def test_d2_the_student_trains_in_train_mode_and_the_teacher_never(
    fits: dict[str, Spied], tmp_path: Path
) -> None:
    run_of(recipe("seeds=[0]", student={"model": "cnn", "options": {"width": 2}}), tmp_path / "run")
    for name, spied in fits.items():
        assert spied.modes, name
        assert all(mode == (True, False) for mode in spied.modes), name


def test_the_last_epoch_is_scored_on_the_test_set_and_no_other(
    fits: dict[str, Spied], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Epochs are watched on the validation set; the test set is seen once an arm, after its last
    epoch, also where an earlier one was better.
    """
    evaluate, seen = Classification.evaluate, []
    test, validation = digits().test.label, digits().validation.label

    def spy(self: Classification, net: Any, batches: Any, teacher: Any = None) -> Any:
        labels = torch.cat([batch["label"] for batch in batches])
        seen.append(
            "test"
            if torch.equal(labels, test)
            else "validation"
            if torch.equal(labels, validation)
            else "?"
        )
        return evaluate(self, net, batches, teacher)

    monkeypatch.setattr(Classification, "evaluate", spy)
    run_of(recipe("seeds=[0]", "baselines=[alone]"), tmp_path / "run")
    arm = ["validation", "validation", "validation", "test"]
    assert seen == [
        "validation",
        "validation",
        "validation",
        "test",
        *arm,
        *arm,
    ]  # two epochs, then both sets; the teacher first
    net = fits["distilled-0-stage0"].scheme.export()
    net.load_state_dict(fits["distilled-0-stage0"].end)
    with torch.no_grad():
        right = net.eval()({"image": digits().test.image})["logits"].argmax(-1) == test
    assert result(tmp_path / "run")["distilled"]["accuracy"]["values"] == [
        pytest.approx(right.double().mean().item())
    ]


def test_a_weight_and_a_temperature_on_a_schedule_are_felt(tmp_path: Path) -> None:
    def losses(**kd: Any) -> list[float]:
        out = tmp_path / str(len(list(tmp_path.iterdir())))
        run_of(recipe("seeds=[0]", "baselines=[]", objectives={"cross_entropy": {}, "kd": kd}), out)
        return [line["losses"]["student/kd"] for line in lines(out) if line["arm"] == "distilled"]

    rising = losses(weight={"start": 0, "end": 1, "after": 0.5, "until": 0.5})
    assert rising[0] == 0 < rising[1]
    assert losses(temperature={"start": 8, "end": 1}) != losses(temperature=8)
    assert losses(temperature={"start": 8, "end": 8}) == losses(temperature=8)


# --- augmentation


def test_d4_d15_the_teacher_sees_the_view_of_the_student(
    fits: dict[str, Spied], tmp_path: Path
) -> None:
    requests: list[tuple[Tensor, Tensor]] = []
    compare = Offline.compute_losses

    def spy(self: Offline, batch: Batch) -> Any:
        if self.teacher is not None:
            inputs: list[Tensor] = []
            handles = [
                net.register_forward_pre_hook(
                    lambda _, arguments: inputs.append(arguments[0]["image"])
                )
                for net in (self.teacher.net, self.student)
            ]
            answer = compare(self, batch)
            for handle in handles:
                handle.remove()
            requests.append((inputs[0], inputs[1]))
            return answer
        return compare(self, batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Offline, "compute_losses", spy)
        run_of(
            recipe("seeds=[0]", "baselines=[]", "data.augment={crop: 1, flip: true}"),
            tmp_path / "run",
        )
    assert len(requests) == 8
    assert all(torch.equal(teacher, student) for teacher, student in requests)
    batches = fits["distilled-0-stage0"].batches
    plain = digits().train.image
    assert not torch.equal(batches[0]["image"], plain[batches[0]["index"]])
    order = [
        torch.cat([batch["index"] for batch in part]).argsort()
        for part in (batches[:4], batches[4:])
    ]
    views = [
        torch.cat([batch["image"] for batch in part])[o]
        for part, o in zip((batches[:4], batches[4:]), order, strict=True)
    ]
    assert not torch.equal(views[0], views[1]), "every epoch has its own"


# --- teachers


def test_a_teacher_of_other_classes_is_read_for_its_features(tmp_path: Path) -> None:
    teacher = {"model": "cnn", "options": {"width": 3, "classes": 4}, "is_trained": True}
    outcome = run_of(
        recipe(
            "seeds=[0]",
            teacher=teacher,
            student={"model": "cnn", "options": {"width": 2}},
            objectives={"cross_entropy": {}, "fitnet": {}},
        ),
        tmp_path / "run",
    )
    assert outcome["status"] == "complete"
    assert not {"teacher", "pseudo_labels"} & set(outcome)
    assert "agreement" not in outcome["distilled"]
    assert outcome["cost"]["teacher"]["parameters"] > 0
    assert (tmp_path / "run" / "report.html").exists()


def test_several_teachers_are_an_ensemble(fits: dict[str, Spied], tmp_path: Path) -> None:
    outcome = run_of(
        recipe(
            "seeds=[0]", "baselines=[]", teacher=[{"model": "cnn", "options": {"width": 2}}, "mlp"]
        ),
        tmp_path / "run",
    )
    assert {"teacher0-stage0", "teacher1-stage0", "distilled-0-stage0"} == set(fits)
    image = digits().test.image
    with torch.no_grad():
        logits = sum(
            fits[f"teacher{n}-stage0"].scheme.student.eval()({"image": image})["logits"]
            for n in (0, 1)
        )
    assert isinstance(logits, Tensor)
    accuracy = (logits.argmax(-1) == digits().test.label).double().mean().item()
    assert outcome["teacher"]["accuracy"]["values"] == [pytest.approx(accuracy)]
    assert outcome["cost"]["teacher"]["parameters"] == sum(
        p.numel() for n in (0, 1) for p in fits[f"teacher{n}-stage0"].scheme.student.parameters()
    )


@pytest.mark.parametrize(
    "scheme", [{"type": "mutual", "peers": ["mlp", "cnn"]}, {"type": "ema", "decay": 0.9}]
)
def test_schemes_without_a_teacher_of_their_own(scheme: dict[str, Any], tmp_path: Path) -> None:
    outcome = run_of(recipe("seeds=[0]", "teacher=null", scheme=scheme), tmp_path / "run")
    assert not {"teacher", "pseudo_labels"} & set(outcome)
    assert set(outcome["cost"]) == {"student"}
    assert set(outcome["gains"]) == {"label_smoothing"}


def test_two_learners_and_an_optimizer_for_one(tmp_path: Path) -> None:
    outcome = run_of(
        recipe("seeds=[0]", "train.optimizers={critic: {lr: 1e-4}}", scheme="adversarial"),
        tmp_path / "run",
    )
    assert outcome["status"] == "complete"
    assert any("critic/critic" in line["losses"] for line in lines(tmp_path / "run"))


def test_the_teacher_runs_once_per_image() -> None:
    experiment = Experiment.from_recipe(recipe())
    net = build_network(experiment.recipe.teachers[0], experiment, "teacher")
    teacher = as_teacher([net])
    assert teacher is not None
    teacher_outputs = CachedTeacher(
        teacher, experiment.task.roles, experiment.loader(experiment.splits.test, shuffle=False)
    )
    rows = torch.tensor([3, 499, 0])
    with torch.no_grad():
        expected = net({"image": experiment.splits.test.image[rows]})["logits"]
    torch.testing.assert_close(teacher_outputs({"index": rows})["logits"], expected)


# --- stages

CNN = {"model": "cnn", "options": {"width": 2}}


def test_hint_then_kd_goes_on_with_the_same_student_and_every_arm_has_all_steps(
    fits: dict[str, Spied], tmp_path: Path
) -> None:
    stages = [
        {"objectives": {"hint": {"type": "fitnet", "pairs": [[1, 1]]}}, "train": {"epochs": 3}},
        {"student": "previous"},
    ]
    run_of(recipe("seeds=[0]", student=CNN, stages=stages), tmp_path / "run")
    first, second = fits["distilled-0-stage0"], fits["distilled-0-stage1"]
    assert same(first.end, second.start)
    assert (first.steps, second.steps) == (12, 8)
    assert set(second.scheme.objectives) == {"cross_entropy", "kd"}
    for name in BASELINES:
        assert fits[f"{name}-0-stage0"].steps == 20
        assert same(fits[f"{name}-0-stage0"].start, first.start)


def test_born_again_teaches_the_next_generation(fits: dict[str, Spied], tmp_path: Path) -> None:
    stages: list[dict[str, Any]] = [
        {"objectives": {"cross_entropy": {}}},
        {"teacher": "previous", "objectives": {"cross_entropy": {}, "kd": {}}, "repeat": 2},
    ]
    outcome = run_of(
        recipe("seeds=[0]", "teacher=null", "baselines=[alone]", stages=stages), tmp_path / "run"
    )
    generations = [fits[f"distilled-0-stage{index}"] for index in range(3)]
    for before, after in pairwise(generations):
        assert after.scheme.teacher is not None
        assert same(before.end, after.scheme.teacher.net.state_dict()), (
            "and the teacher was not trained"
        )
        assert not same(before.start, after.start), "every generation has new initial weights"
    assert same(fits["alone-0-stage0"].start, generations[2].start), (
        "alone starts as the one that is shipped"
    )
    assert fits["alone-0-stage0"].steps == 24
    assert "teacher" not in outcome


def test_an_assistant_is_taught_and_teaches(fits: dict[str, Spied], tmp_path: Path) -> None:
    """The middle net has another shape than the student, and its features are read; the teacher of
    the table is the one at the beginning.
    """
    stages = [
        {"student": {"model": "cnn", "options": {"width": 4}}},
        {"teacher": "previous", "objectives": {"cross_entropy": {}, "fitnet": {}}},
    ]
    outcome = run_of(recipe("seeds=[0]", student=CNN, stages=stages), tmp_path / "run")
    assert set(BASELINES) | {"teacher", "distilled"} <= set(outcome)
    assert fits["distilled-0-stage0"].scheme.student.model.stages[0][0].out_channels == 4
    assert fits["distilled-0-stage1"].scheme.teacher is not None
    assert same(
        fits["distilled-0-stage0"].end, fits["distilled-0-stage1"].scheme.teacher.net.state_dict()
    )


def test_a_student_that_goes_on_is_taught_by_what_it_was(
    fits: dict[str, Spied], tmp_path: Path
) -> None:
    stages = [{"objectives": {"cross_entropy": {}}}, {"teacher": "previous", "student": "previous"}]
    run_of(recipe("seeds=[0]", "teacher=null", "baselines=[]", stages=stages), tmp_path / "run")
    first, second = fits["distilled-0-stage0"], fits["distilled-0-stage1"]
    assert second.scheme.teacher is not None
    assert same(first.end, second.start)
    assert same(first.end, second.scheme.teacher.net.state_dict()), "which does not change with it"
    assert not same(second.start, second.end)


def test_a_stage_may_batch_and_augment_otherwise(fits: dict[str, Spied], tmp_path: Path) -> None:
    stages = [
        {"data": {"batch_size": 100, "num_labeled": 50}},
        {"data": {"augment": {"crop": 1}}, "student": "previous"},
    ]
    run_of(recipe("seeds=[0]", "baselines=[]", stages=stages), tmp_path / "run")
    first, second = (fits[f"distilled-0-stage{index}"].batches for index in (0, 1))
    assert {len(batch["index"]) for batch in first} == {100}
    assert {len(batch["index"]) for batch in second} == {250}
    assert sum(int((batch["label"] != UNLABELLED).sum()) for batch in first[:10]) == 50
    plain = digits().train.image
    assert all(torch.equal(batch["image"], plain[batch["index"]]) for batch in first)
    assert not any(torch.equal(batch["image"], plain[batch["index"]]) for batch in second)


def test_a_finished_arm_is_read_and_not_trained_again(
    fits: dict[str, Spied], tmp_path: Path
) -> None:
    run_of(recipe(), tmp_path / "run")
    fits.clear()
    before = json.loads((tmp_path / "run" / "checkpoint" / "distilled-1.json").read_text())
    run_of(recipe(), tmp_path / "run", resume=True)
    assert fits == {}
    assert json.loads((tmp_path / "run" / "checkpoint" / "distilled-1.json").read_text()) == before


def test_a_seed_sets_the_same_random_state_in_each_arm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    states: dict[int, list[Tensor]] = {}
    real = module.fit

    def fit(scheme: Scheme, loader: Any, training: Any, **options: Any) -> Any:
        if "teacher" not in options["checkpoint"].name:
            states.setdefault(training.seed, []).append(torch.get_rng_state())
        return real(scheme, loader, training, **options)

    monkeypatch.setattr(module, "fit", fit)
    run_of(recipe("train.epochs=1", "baselines=[alone, pseudo_labels]"), tmp_path / "run")
    assert {seed: len(actual) for seed, actual in states.items()} == {0: 3, 1: 3}
    for actual in states.values():
        assert all(torch.equal(actual[0], other) for other in actual[1:]), (
            "dropout and adapters of the arms would draw other numbers"
        )
    assert not torch.equal(states[0][-1], states[1][-1]), (
        "every seed would give the distilled student the same adapters"
    )


NOISY = """
import random

import numpy as np
from torch import nn


class Noisy(nn.Sequential):
    def forward(self, image):
        noise = np.random.standard_normal() + random.random() if self.training else 0.0
        return super().forward(image + noise)


def build(classes, size):
    return Noisy(nn.Flatten(), nn.Linear(size * size, classes))
"""


def test_seeds_decide_the_random_numbers_of_python_and_numpy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("INSTIL_CACHE_GB", "0")
    (tmp_path / "noisy_module.py").write_text(NOISY)
    model = {"model": "noisy_module:build"}
    noisy = recipe("seeds=[0]", "baselines=[]", teacher=model, student=model)
    files = []
    for index in range(2):
        monkeypatch.setenv("INSTIL_CACHE", str(tmp_path / f"cache-{index}"))
        # As in a process of its own, whose generators start anywhere.
        set_seed(index)
        run_of(noisy, tmp_path / f"run-{index}")
        files.append(load_file(tmp_path / f"run-{index}" / "student.safetensors"))
    assert all(torch.equal(value, files[1][name]) for name, value in files[0].items())
