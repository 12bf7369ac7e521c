"""Scores of a student on the test data of all stages, after each stage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from instil.data.class_subset import of_classes
from instil.data.samples import Samples
from instil.experiment.experiment import Experiment
from instil.experiment.stage_data import has_different_data
from instil.plan.evaluation import Evaluator

Scores = list[list["float | None"]]
"""Headline metric by stage and test; None before the test's classes or samples are learned."""


@dataclass(frozen=True)
class StageTest:
    """Test data of one or several stages.

    Attributes:
        name: name of the first stage that learns from these data.
        first: index of that stage.
        last: index of the last stage that learns from these data.
        stage: experiment of the first stage.
        samples: test samples of the learned classes.
    """

    name: str
    first: int
    last: int
    stage: Experiment
    samples: Samples

    @property
    def learned(self) -> tuple[str, ...]:
        """Classes of the training samples of the stage."""
        assert self.stage.stage_data is not None
        return self.stage.stage_data.learned


class StageScores:
    """Scores of one student, filled stage after stage.

    Args:
        evaluator: measures networks.
        stages: experiment of each stage.

    Attributes:
        rows: scores after each stage; empty if all stages have the same data.
    """

    def __init__(self, evaluator: Evaluator, stages: Sequence[Experiment]) -> None:
        self.evaluator = evaluator
        self.stages = stages
        self.tests = stage_tests(evaluator.experiment, stages)
        self.rows: Scores = []

    def add(self, net: nn.Module, stage_index: int) -> None:
        """Measure the student of a stage on the tests of this stage and of earlier ones."""
        if not self.tests:
            return
        classes = self.stages[stage_index].splits.classes
        row: list[float | None] = []
        for test in self.tests:
            is_learned = test.first <= stage_index and set(test.learned) <= set(classes)
            samples = _with_classes(test, classes) if is_learned else None
            row.append(None if samples is None else self.evaluator.headline(net, samples))
        self.rows.append(row)

    def metrics(self) -> dict[str, float]:
        """Return the mean over all tests, at the end and over the stages, and the forgetting."""
        if not self.rows:
            return {}
        task = self.evaluator.task
        means = [mean for mean in row_means(self.rows) if mean is not None]
        metrics: dict[str, float] = {}
        # The last stage has learned at least one test.
        if means:
            metrics[f"average_{task.headline}"] = means[-1]
            metrics[f"incremental_{task.headline}"] = sum(means) / len(means)
        losses = forgetting(self.rows, self.tests, task.higher_is_better)
        # The last stage has had no time to forget.
        earlier = [
            loss
            for loss, test in zip(losses, self.tests, strict=True)
            if loss is not None and test.last < len(self.stages) - 1
        ]
        if earlier:
            metrics["forgetting"] = sum(earlier) / len(earlier)
        return metrics


def stage_tests(experiment: Experiment, stages: Sequence[Experiment]) -> list[StageTest]:
    """Return the test data of all stages; empty if all stages have the same data.

    Args:
        experiment: experiment of the whole recipe.
        stages: experiment of each stage.
    """
    if not has_different_data(experiment.data_of_stages):
        return []
    indices: dict[int, list[int]] = {}
    for index, stage in enumerate(stages):
        assert stage.stage_data is not None
        # Stages with the same samples share the object.
        indices.setdefault(id(stage.stage_data.own_test), []).append(index)
    tests = []
    for of_test in indices.values():
        stage = stages[of_test[0]]
        assert stage.stage_data is not None
        has_name = stage.recipe.name != experiment.recipe.name
        name = stage.recipe.name if has_name else f"stage {of_test[0]}"
        samples = stage.stage_data.own_test
        tests.append(StageTest(name, of_test[0], of_test[-1], stage, samples))
    return tests


def row_means(rows: Scores) -> list[float | None]:
    """Return the mean over the tests that a student has learned, after each stage.

    Args:
        rows: scores after each stage; the mean of a stage without scores is None.
    """
    means: list[float | None] = []
    for row in rows:
        values = [value for value in row if value is not None]
        means.append(sum(values) / len(values) if values else None)
    return means


def forgetting(
    rows: Scores, tests: Sequence[StageTest], higher_is_better: bool
) -> list[float | None]:
    """Return the score after the last stage with a test's data, minus that at the end.

    Args:
        rows: scores after each stage.
        tests: tests of the columns.
        higher_is_better: whether a larger score is better; otherwise the sign changes.
    """
    losses: list[float | None] = []
    for column, test in enumerate(tests):
        learned, final = rows[test.last][column], rows[-1][column]
        if learned is None or final is None:
            losses.append(None)
        else:
            losses.append(learned - final if higher_is_better else final - learned)
    return losses


def _with_classes(test: StageTest, classes: Sequence[str]) -> Samples | None:
    """Return the samples of a test with labels in the classes of a network, if that is possible."""
    if tuple(test.stage.splits.classes) == tuple(classes):
        return test.samples
    if test.stage.splits.kind != "single":
        return None
    return of_classes(test.samples, test.learned, classes)
