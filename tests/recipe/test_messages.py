"""Messages of a recipe with one wrong value, as `instil doctor` prints them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from instil.experiment.dry_run import dry_run
from instil.experiment.experiment import Experiment
from instil.recipe import load

RECIPE = """
data: {name: digits, num_labeled: 100}
teacher: {model: cnn, options: {width: 8}}
student: {model: cnn, options: {width: 4}}
objectives:
  cross_entropy: {}
  kd: {}
  deep: {type: fitnet, pairs: [[1, 1]]}
train: {epochs: 1}
"""


def message_of(folder: Path, *changes: str) -> str:
    """Message of the first error of a changed recipe."""
    path = folder / "own.yaml"
    path.write_text(RECIPE)
    with pytest.raises(ValueError, match=r"\w") as caught:
        list(dry_run(Experiment.from_recipe(load(path, changes))))
    return str(caught.value)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("objectives.kdd=null", "objectives.kdd: null removes an objective, .* Did you mean kd?"),
        ("objectives.fitnet=null", "The recipe has cross_entropy, kd, deep.$"),
        ("headline=macro_f1", "Expected one of accuracy. Add metrics: .macro_f1.$"),
        ("headline=nothing", "^headline: .* Expected one of accuracy.$"),
        ("train.schedule=cosin", "Did you mean cosine or constant?"),
        ("train.optimizer.type=adamx", "^train.optimizer: No optimizer"),
        ("train.optimizer.groups=[{mach: head.*}]", "Did you mean match?"),
        (
            "train.optimizer.groups=[{match: headd.*}]",
            "^train: .*begin with stages, head. This is the teacher's training, which has",
        ),
        ("objectives.rkd.sample_weight=entropy", "^objectives.rkd.sample_weight: RKD has one"),
        (
            "objectives.cross_entropy.class_weights=[1, 1, 5]",
            "^objectives.cross_entropy: class_weights: 3 weights",
        ),
        ("teacher=my_module:build", "ultralytics:.$"),
    ],
)
def test_a_wrong_value_has_its_path_and_a_remedy(
    tmp_path: Path, change: str, expected: str
) -> None:
    groups = ["train.optimizer.groups=[]"] if "groups" in change else []
    assert re.search(expected.replace("?", r"\?"), message_of(tmp_path, *groups, change))


def test_the_task_of_the_data_is_proposed(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    message = message_of(tmp_path, "data={name: sklearn:iris}")
    assert "Set the task tabular_classification or tabular_regression" in message


def test_one_metric_needs_no_list(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(RECIPE)
    recipe = load(path, ["metrics=macro_f1", "headline=macro_f1"])
    assert list(recipe.metrics) == ["macro_f1"]
