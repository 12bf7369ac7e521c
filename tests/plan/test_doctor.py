"""Findings of the doctor: healthy recipes, problems, and no change of any file or random state."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from instil import recipe as recipes
from instil.baselines.bases.baseline import Baseline
from instil.cli import main
from instil.core import Net
from instil.experiment.dry_run import dry_run
from instil.experiment.experiment import Experiment
from instil.experiment.networks import build_network
from instil.experiment.trained_teachers import cache_path
from instil.plan.doctor import doctor
from instil.plan.examination import examine_stage
from instil.recipe import RecipeError
from tests.experiment.small import SMALL, recipe, run_of
from tests.recipe_sizes import small_data

CNN = {"model": "cnn", "options": {"width": 2}}


def problems_of(*changes: str, **sections: Any) -> str:
    return "\n".join(doctor(recipe(*changes, **sections))["problems"])


def test_the_findings_of_a_healthy_recipe() -> None:
    findings = doctor(
        recipe(
            student=CNN,
            objectives={"cross_entropy": {}, "kd": {"weight": 2}, "fitnet": {"weight": 0.5}},
        )
    )
    assert set(findings) == {"recipe", "data", "run", "stages", "baselines", "notes", "problems"}
    assert findings["notes"][-1] == (
        "Learning rate of the student: 0.01 (adamw), as the recipe sets it."
    )
    (stage,) = findings["stages"]
    assert set(stage) == {
        "scheme",
        "teacher_trained",
        "student",
        "teacher",
        "objectives",
        "match",
        "signals",
        "forecast",
        "notes",
        "problems",
    }
    assert stage["student"]["parameters"] == sum(
        p.numel()
        for p in build_network(
            recipe(student=CNN).student, Experiment.from_recipe(recipe()), "s"
        ).parameters()
    )
    assert stage["student"]["roles"]["logits"] == [250, 10]
    assert stage["student"]["roles"]["features"] == [[250, 2, 8, 8], [250, 4, 4, 4], [250, 8, 2, 2]]
    assert stage["student"]["taps"]["features"] == ["stages.0", "stages.1", "stages.2"]
    assert set(stage["objectives"]) == {"student/cross_entropy", "student/kd", "student/fitnet"}
    assert sum(entry["share"] for entry in stage["objectives"].values()) == pytest.approx(1)
    fitnet = stage["objectives"]["student/fitnet"]
    assert fitnet["plan"]
    assert fitnet["reads"] == {"student": ["features"], "teacher": ["features"]}
    assert stage["forecast"]["steps"] == 2 * 4
    assert stage["forecast"]["seconds"] == pytest.approx(8 * stage["forecast"]["seconds_per_step"])
    assert stage["forecast"]["bytes"] > stage["forecast"]["activation_bytes"] > 250 * 64 * 4
    json.dumps(findings, allow_nan=False)


def test_pseudo_labels_of_a_teacher_with_other_classes_are_left_out_as_in_a_run() -> None:
    changes = "baselines=[alone, pseudo_labels]", "seeds=[0, 1]"
    data = {"name": "digits", "class_subset": [0, 1, 2], "batch_size": 50}
    teacher = {**CNN, "data": {"name": "digits"}, "shared_classes": True}
    findings = doctor(
        recipe(*changes, data=data, student=CNN, teacher=teacher, objectives={"kd": {}})
    )
    assert list(findings["baselines"]) == ["alone"]
    assert findings["run"]["arms"] == ["alone", "distilled"]
    assert findings["run"]["trainings"] == 1 + 2 * 2
    findings = doctor(recipe(*changes, student=CNN, objectives={"fitnet": {}}))
    assert findings["run"]["arms"] == ["alone", "pseudo_labels", "distilled"]


def test_values_and_gradients_by_hand() -> None:
    one = recipe()
    findings = doctor(one)["stages"][0]["objectives"]
    experiment = Experiment.from_recipe(one)
    _, scheme, _ = next(dry_run(experiment))
    batch = next(iter(experiment.loader(experiment.train_data(0), 0)))
    logits = scheme.student.train()(batch)["logits"]
    is_labelled = batch["label"] != -100
    loss = torch.nn.functional.cross_entropy(
        logits[is_labelled], batch["label"][is_labelled], reduction="sum"
    ) / len(is_labelled)
    entry = findings["student/cross_entropy"]
    assert entry["value"] == pytest.approx(loss.item(), rel=1e-5)
    assert entry["count"] == len(is_labelled)
    norms = [grad.norm() for grad in torch.autograd.grad(loss, list(scheme.student.parameters()))]
    assert entry["gradient"] == pytest.approx(float(torch.stack(norms).norm()), rel=1e-4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            ["objectives.kd.weight=0"],
            "objectives.kd: the gradient of this loss does not reach learner 'student'",
        ),
        (
            ["data.num_labeled=1", "data.batch_size=2"],
            "objectives.cross_entropy: no item of the first 8 batches contributes to this loss",
        ),
        (
            ["objectives.kd.weight={start: 0, end: 0}"],
            "objectives.kd: the gradient of this loss does not reach",
        ),
    ],
)
def test_problems(changes: list[str], message: str) -> None:
    assert message in problems_of(*changes)


@pytest.mark.parametrize("name", ["dlb", "dmd2", "dkd"])
def test_a_loss_may_begin_without_items_or_at_its_minimum(name: str) -> None:
    assert doctor(recipes.load(name, small_data(name)))["problems"] == []


@pytest.mark.parametrize("name", ["transfer", "depth"])
def test_few_labels_may_be_missing_in_the_first_batch(name: str) -> None:
    report = doctor(recipes.load(name, [*small_data(name), "baselines=[]"]))
    assert report["problems"] == []
    values = {key: facts["value"] for key, facts in report["stages"][0]["objectives"].items()}
    assert all(value > 0 for value in values.values()), values


@pytest.mark.parametrize("name", ["distil_whisper", "verified"])
def test_texts_of_an_untrained_teacher_are_not_filtered(name: str) -> None:
    small = ["data.rows=64", "data.batch_size=16", "teacher.options.width=16", "baselines=[]"]
    report = doctor(recipes.load(name, small))
    assert report["problems"] == []
    assert any("its texts are not filtered here" in note for note in report["notes"])
    assert all(facts["count"] for facts in report["stages"][0]["objectives"].values())


def test_few_labels_may_have_a_small_share_of_the_gradient() -> None:
    few = ["data.num_labeled=10", "objectives.cross_entropy.weight=1e-4"]
    assert "objectives.cross_entropy" not in problems_of(*few)
    labelled = [*few, "objectives.cross_entropy.average=labelled"]
    assert "objectives.cross_entropy.average: labelled gives 10 labels" in problems_of(*labelled)


def test_a_teacher_that_is_worse_than_chance(tmp_path: Path) -> None:
    """Its classes are in another order, and no name shows it."""
    (tmp_path / "crooked.py").write_text(
        "import torch\nfrom torch import nn\nfrom instil.networks.mlp import mlp\n"
        "class Good(nn.Module):\n"
        "    def __init__(self, shift):\n        super().__init__()\n"
        "        self.scale, self.shift = nn.Parameter(torch.ones(1)), shift\n"
        "    def forward(self, image):\n"
        "        from instil.data.sources.digits import digits\n        train = digits().train\n"
        "        near = torch.cdist(image.flatten(1), train.image.flatten(1)).argmin(1)\n"
        "        label = (train.label[near] + self.shift) % 10\n"
        "        return self.scale * 5 * nn.functional.one_hot(label, 10)\n"
        "def wrong(classes): return Good(1)\ndef right(classes): return Good(0)\n"
    )
    changes = {"folder": str(tmp_path), "data": {"name": "digits", "batch_size": 1000}}
    right = doctor(recipe(**changes, teacher={"model": "crooked:right", "is_trained": True}))
    wrong = doctor(recipe(**changes, teacher={"model": "crooked:wrong", "is_trained": True}))
    assert right["problems"] == []
    assert right["stages"][0]["match"]["teacher_accuracy"] == 1
    assert wrong["stages"][0]["match"]["teacher_accuracy"] == 0
    assert any(
        "right less often than the untrained student" in problem for problem in wrong["problems"]
    )


def test_a_submodule_of_the_teacher_in_train_mode() -> None:
    problem = "teacher: a submodule is in train mode. Expected the whole teacher in eval mode"
    experiment = Experiment.from_recipe(recipe(student=CNN))
    stage, scheme, _ = next(dry_run(experiment))
    assert scheme.teacher is not None
    original = scheme.teacher.net.model.stages[0]

    class Stubborn(type(original)):  # type: ignore[misc]
        def train(self, mode: bool = True) -> Any:
            return super().train(True)

    original.__class__ = Stubborn
    original.train()
    assert problem in examine_stage(stage, scheme, True)["problems"]


SCHEMES: dict[str, dict[str, Any]] = {
    "offline": {},
    "mutual": {"teacher": None, "scheme": {"type": "mutual", "peers": ["mlp"]}},
    "ema": {
        "teacher": None,
        "scheme": {"type": "ema"},
        "data": {**SMALL["data"], "augment": {"crop": 1}},
    },
    "adversarial": {"scheme": "adversarial"},
    "ensemble": {"teacher": ["cnn", "mlp"]},
    "stages": {
        "student": CNN,
        "stages": [
            {"objectives": {"fitnet": {}}},
            {"student": "previous"},
            {"teacher": "previous", "repeat": 2},
        ],
    },
}


@pytest.mark.parametrize("name", SCHEMES)
def test_every_scheme_on_the_terminal_and_as_json(
    name: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Teachers that other tests trained would let doctor judge the shares of the gradient.
    monkeypatch.setenv("INSTIL_CACHE", str(tmp_path / "cache"))
    one = recipe(**SCHEMES[name])
    from instil.recipe import to_yaml

    (tmp_path / "recipe.yaml").write_text(to_yaml(one))
    for words in ([], ["--json"]):
        with pytest.raises(SystemExit) as ended:
            main(["doctor", str(tmp_path / "recipe.yaml"), *words])
        out, err = capsys.readouterr()
        assert (ended.value.code, err) == (0, "")
    findings = json.loads(out)
    assert len(findings["stages"]) == (4 if name == "stages" else 1)
    for stage in findings["stages"]:
        assert all(entry["gradient"] >= 0 for entry in stage["objectives"].values())
    learners = {key.split("/")[0] for key in findings["stages"][0]["objectives"]}
    assert learners == {"mutual": {"student", "peer0"}, "adversarial": {"student", "critic"}}.get(
        name, {"student"}
    )


def test_nothing_is_trained_or_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INSTIL_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    one = recipe("seeds=[0]", "baselines=[]", "train.epochs=1", student=CNN)
    assert doctor(one)["stages"][0]["teacher_trained"] is False
    assert list(tmp_path.iterdir()) == []
    run_of(one, tmp_path / "run")
    cached = cache_path(Experiment.from_recipe(one), one.teachers[0], 0)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    state = torch.get_rng_state()
    findings = doctor(one)
    assert torch.equal(torch.get_rng_state(), state)
    assert findings["stages"][0]["teacher_trained"] is True
    assert cached in before
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_cached_teacher_is_evaluated_with_its_trained_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INSTIL_CACHE", str(tmp_path / "cache"))
    one = recipe(
        "seeds=[0]",
        "baselines=[]",
        "teacher_train.epochs=30",
        "train.epochs=1",
        "data.batch_size=100",
        "data.num_labeled=null",
    )
    run_of(one, tmp_path / "run")
    assert doctor(one)["stages"][0]["match"]["teacher_accuracy"] > 0.6


def test_the_taps_of_a_frozen_net_are_listed() -> None:
    experiment = Experiment.from_recipe(recipe(student=CNN))
    _, scheme, _ = next(dry_run(experiment))
    assert isinstance(scheme.student, Net)
    assert doctor(recipe(student=CNN))["stages"][0]["teacher"]["taps"]["embedding"] == "head:in"


def test_every_baseline_takes_its_first_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    trained: list[str] = []
    train = Baseline.train

    def noted(self: Baseline, training: Any) -> Any:
        trained.append(training.name)
        return train(self, training)

    monkeypatch.setattr(Baseline, "train", noted)
    findings = doctor(recipe("seeds=[0]", "baselines=[alone, label_smoothing, pseudo_labels]"))
    # The estimate of pseudo-labels is that of the distilled student.
    assert trained == ["alone", "label_smoothing"]
    student = findings["stages"][0]["forecast"]["seconds"]
    run = findings["run"]
    assert run["seconds"] > run["teacher_seconds"] + 2 * student


def test_an_error_of_a_baseline_is_found_before_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Baseline, training: Any) -> Any:
        raise ValueError("expected two classes, got ten")

    monkeypatch.setattr(Baseline, "train", fail)
    with pytest.raises(RecipeError, match=r"^baselines\.alone: expected two classes"):
        doctor(recipe("seeds=[0]", "baselines=[alone]"))
