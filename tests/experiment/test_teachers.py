"""Teachers with their own data, several teachers, and their combination into one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from instil.cli.summary_table import label_line
from instil.experiment.dry_run import dry_run
from instil.experiment.experiment import Experiment
from instil.experiment.teachers import teacher_training_data
from instil.experiment.trained_teachers import cache_path
from instil.recipe import RecipeError, build
from instil.teachers.amalgamated import Amalgamated
from instil.teachers.ensemble import Ensemble
from instil.teachers.private_votes import PrivateVotes
from instil.teachers.routed import Routed
from tests.experiment.small import recipe, run_of

LOW, HIGH = (
    "{model: cnn, data: {name: digit_domains, classes: ['" + "', '".join(part) + "']}}"
    for part in ("01234", "56789")
)
PRIVATE = (
    "data={name: digit_domains, rows: [700, 1000]}",
    "teacher.data={name: digit_domains, rows: [0, 700]}",
    "scheme=pate",
    "objectives.kd=null",
)


def experiment(*changes: str) -> Experiment:
    return Experiment.from_recipe(recipe(*changes))


def teacher_of(one: Experiment) -> torch.nn.Module | None:
    *_, (_, scheme, _) = dry_run(one)
    return scheme.teacher


def test_a_teacher_is_trained_on_the_data_that_it_names() -> None:
    one = experiment("teacher.data={name: digit_domains, look: inverted}")
    own = teacher_training_data(one, one.recipe.teachers[0], 0)
    image = one.splits.train.__getitems__([3])["image"]
    assert torch.equal(own.splits.train.__getitems__([3])["image"], 1 - image)
    assert own.recipe.data.name == "digit_domains"
    assert cache_path(one, one.recipe.teachers[0], 0) != cache_path(
        experiment(), recipe().teachers[0], 0
    )
    assert (
        teacher_training_data(experiment(), recipe().teachers[0], 0).splits.train
        is not own.splits.train
    )


def test_replicas_have_separate_initializations_and_cache_entries() -> None:
    one = experiment("teacher.num_replicas=3")
    assert (
        len({cache_path(one, spec, index) for index, spec in enumerate(one.recipe.teachers)}) == 3
    )
    assert isinstance(teacher_of(one), Ensemble)
    assert cache_path(one, one.recipe.teachers[0], 0) == cache_path(
        experiment(), recipe().teachers[0], 0
    ), "the first is the one that there would be alone"


def test_several_teachers_are_combined_as_the_recipe_defines() -> None:
    routed = teacher_of(
        experiment(
            "teacher=[cnn, {model: cnn, options: {width: 2}}]", "ensemble={type: routed, by: label}"
        )
    )
    assert isinstance(routed, Routed)
    assert routed.by == "label"
    probable = teacher_of(
        experiment("teacher.num_replicas=2", "ensemble={type: ensemble, mean: probabilities}")
    )
    assert isinstance(probable, Ensemble)
    assert probable.mean == "probabilities"
    joined = teacher_of(experiment(f"teacher=[{HIGH}, {LOW}]", "ensemble=amalgamated"))
    assert isinstance(joined, Amalgamated)
    assert joined.order.tolist() == [5, 6, 7, 8, 9, 0, 1, 2, 3, 4]


@pytest.mark.parametrize("column", ["teacher_id", "domain"])
def test_a_late_row_without_a_teacher_is_an_error_before_training(
    column: str, tmp_path: Path
) -> None:
    rows = [{"text": "the lazy dog", "teacher_id": i % 2, "domain": "ab"[i % 2]} for i in range(40)]
    rows[31] |= {"teacher_id": 2, "domain": "c"}
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    data = {"name": "chat", "files": "rows.jsonl", "tokenizer": "bytes", "length": 16}
    network = {"model": "causal_transformer", "options": {"width": 8}}
    sections = {
        "folder": str(tmp_path),
        "task": "language",
        "data": data | {"batch_size": 1},
        "teacher": [network, network],
        "ensemble": {"type": "routed", "by": column},
        "student": network,
        "objectives": {"kd": {}},
    }
    message = rf"^ensemble\.by: {column} of row \d+ of train .* from 0 to 1, got 2"
    with pytest.raises(RecipeError, match=message):
        teacher_of(Experiment.from_recipe(build(sections)))


def test_an_unknown_combination_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"ensemble: No teacher named 'rooted'\. Did you mean routed"
    ):
        recipe("teacher.num_replicas=2", "ensemble=rooted")
    with pytest.raises(
        ValueError, match=r"ensemble\.by: 'entropy', 'label', 'domain' or 'teacher_id' was expected"
    ):
        recipe("teacher.num_replicas=2", "ensemble={type: routed, by: size}")
    with pytest.raises(
        ValueError,
        match=r"ensemble: 'frozen' is one teacher\. Expected a combination\. Did you mean routed",
    ):
        teacher_of(experiment("teacher.num_replicas=2", "ensemble=frozen"))
    with pytest.raises(ValueError, match=r"ensemble: no member has the class '5'"):
        teacher_of(experiment(f"teacher=[{LOW}]", "ensemble=amalgamated"))
    with pytest.raises(
        ValueError, match="num_replicas: this teacher is not trained here; leave it out"
    ):
        recipe("teacher={model: cnn, weights: some.safetensors, num_replicas: 2}")


def test_logits_of_other_classes_are_refused() -> None:
    five = ("data={name: digit_domains, classes: ['5', '6', '7', '8', '9']}", f"teacher={LOW}")
    with pytest.raises(ValueError, match="class 0 is '0' for the teacher and '5' in the data"):
        teacher_of(experiment(*five))
    teacher_of(experiment(*five, "objectives.kd=null", "student=cnn", "objectives.pkt={}"))
    votes = ("scheme=pate", "objectives.kd=null", "ensemble={type: private_votes, noise: 2}")
    with pytest.raises(ValueError, match="class 0 is '0' for the teacher and '5' in the data"):
        teacher_of(experiment(*five, *votes))
    with pytest.raises(ValueError, match=r"teacher\.data: unknown data source 'digitz'"):
        teacher_of(experiment("teacher.data=digitz"))


def test_members_whose_votes_are_private_share_no_sample() -> None:
    one = experiment(*PRIVATE, "teacher.num_replicas=4", "ensemble={type: private_votes, noise: 2}")
    parts = [
        teacher_training_data(one, spec, index).splits.train
        for index, spec in enumerate(one.recipe.teachers)
    ]
    images = torch.cat([part.__getitems__(range(len(part)))["image"] for part in parts])
    assert len(images) == 700
    assert len(images.flatten(1).unique(dim=0)) >= 695, (
        "some digits are written twice, pixel by pixel"
    )
    assert all(len(part.label.unique()) == 10 for part in parts)
    assert isinstance(teacher_of(one), PrivateVotes)
    many = experiment(*PRIVATE, "teacher.num_replicas=701", "ensemble={type: private_votes}")
    with pytest.raises(ValueError, match="701 members share 700 samples"):
        teacher_training_data(many, many.recipe.teachers[0], 0)


def test_the_privacy_cost_is_in_the_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INSTIL_CACHE", str(tmp_path / "cache"))
    changes = (
        *PRIVATE,
        "teacher.num_replicas=2",
        "ensemble={type: private_votes, noise: 2, answers: 50}",
        "train.epochs=1",
        "seeds=[0]",
        "baselines=[]",
    )
    outcome = run_of(recipe(*changes), tmp_path / "run")
    keys = {"epsilon", "delta", "questions", "answered", "votes_epsilon"}
    assert outcome["privacy"].keys() == keys
    assert 0 < outcome["privacy"]["votes_epsilon"] <= outcome["privacy"]["epsilon"]
    assert outcome["privacy"]["questions"] == 300
    assert outcome["privacy"]["answered"] == 50
    assert outcome["privacy"]["epsilon"] > 0
    assert "teacher" not in outcome, "it has no score: it answers what it met alone"
    assert "for 50 answers to 300 questions" in (tmp_path / "run" / "report.html").read_text()


def test_a_teacher_of_other_classes_has_no_score(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INSTIL_CACHE", str(tmp_path / "cache"))
    data = "data={name: digit_domains, classes: ['5', '6', '7', '8', '9'], num_labeled: 10}"
    changes = (
        data,
        f"teacher={LOW}",
        "objectives.kd=null",
        "student=cnn",
        "objectives.pkt={}",
        "train.epochs=1",
        "seeds=[0]",
        "baselines=[]",
    )
    assert "teacher" not in run_of(recipe(*changes), tmp_path / "run")


def test_each_of_several_students_is_evaluated_and_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INSTIL_CACHE", str(tmp_path / "cache"))
    scheme = "scheme={type: several_students, others: [{model: mlp, options: {width: 8}}]}"
    outcome = run_of(
        recipe(scheme, "train.epochs=1", "seeds=[0]", "baselines=[]"), tmp_path / "run"
    )
    assert 0 < outcome["distilled"]["other0_accuracy"]["mean"] <= 1
    assert (tmp_path / "run" / "other0-0.safetensors").exists()


def test_a_teacher_with_as_many_labels_as_the_student_knows_the_same_samples() -> None:
    experiment = Experiment.from_recipe(recipe("teacher.data={num_labeled: 100}"))
    teacher = teacher_training_data(
        experiment.stages[0], experiment.recipe.teachers[0], 0
    ).splits.train
    for seed in experiment.recipe.seeds:
        student = experiment.train_data(seed)
        assert torch.equal(student.label, teacher.label)
        assert int((student.label != -100).sum()) == 100


def test_a_student_with_fewer_labels_than_the_teacher_knows_a_part_of_them() -> None:
    experiment = Experiment.from_recipe(recipe("teacher.data={num_labeled: 300}"))
    teacher = teacher_training_data(
        experiment.stages[0], experiment.recipe.teachers[0], 0
    ).splits.train
    student = experiment.train_data(1)
    assert int((teacher.label != -100).sum()) == 300
    is_labelled = student.label != -100
    assert torch.equal(student.label[is_labelled], teacher.label[is_labelled])


def test_without_a_limit_every_seed_has_labels_of_its_own() -> None:
    experiment = Experiment.from_recipe(recipe())
    assert not torch.equal(experiment.train_data(0).label, experiment.train_data(1).label)


def test_a_run_reports_the_number_of_labels_of_teacher_and_student(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INSTIL_CACHE", str(tmp_path / "cache"))
    changes = ("train.epochs=1", "seeds=[0]", "baselines=[alone]")
    outcome = run_of(recipe("teacher.data={num_labeled: 200}", *changes), tmp_path / "run")
    assert outcome["labels"] == {
        "student": 100,
        "teachers": [
            {"model": "cnn", "data": "digits", "samples": 1000, "labelled": 200},
        ],
        "same_for_all_seeds": True,
        "samples_seen": {"alone": 100, "distilled": 1000},
    }
    everything = run_of(recipe(*changes), tmp_path / "other")
    assert everything["labels"]["teachers"][0]["labelled"] == 1000
    assert everything["labels"]["same_for_all_seeds"] is False
    assert label_line(outcome) == "Labels: teacher 200, student 100."
    # two teachers, not one from the cache: other labels need another training
    assert len(list((tmp_path / "cache" / "teachers").glob("*.safetensors"))) == 2


@pytest.mark.parametrize(
    ("teacher", "message"),
    [
        ({"data": {"num_labeled": 5000}}, "teacher.data.num_labeled: 5000 of 1000 labelled"),
        ({"data": {"num_labeled": 0}}, "teacher.data.num_labeled: "),
        ({"data": {"size": 8}}, "teacher.data: size is an option of a source"),
        (
            {"data": {"num_labeled": 10}, "is_trained": True},
            "teacher: data.num_labeled hides labels from a training, and this teacher is not",
        ),
    ],
)
def test_labels_that_a_teacher_cannot_have_are_refused(
    teacher: dict[str, Any], message: str
) -> None:
    with pytest.raises(RecipeError) as caught:
        list(dry_run(Experiment.from_recipe(recipe(teacher={"model": "cnn", **teacher}))))
    assert message in str(caught.value)
