"""Trained results of runs and searches, and the settings in which they may be compared."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from instil.plan.statistics import paired_gain, summarize

ResultKind = Literal["teacher", "baseline", "method"]


@dataclass(frozen=True)
class Setting:
    """Task, data and metric. Only results of one setting are compared with each other.

    Attributes:
        key: text that is equal for equal settings, apart from ``num_test`` and
            ``test_digest``.
        task: name of the task.
        data: name of the data.
        details: options of the data, number of labels and of samples, for readers.
        metric: headline metric.
        higher_is_better: direction of the metric.
        is_fraction: the metric is shown in percent.
        num_test: number of test samples; differs if the data were changed. None: not recorded.
        test_digest: digest of the test samples with their labels. None: not recorded.
    """

    key: str
    task: str
    data: str
    details: str
    metric: str
    higher_is_better: bool
    is_fraction: bool
    num_test: int | None = None
    test_digest: str | None = None


@dataclass(frozen=True)
class Axes:
    """Position of a method on the axes of the survey, from the cards of its parts.

    Attributes:
        sources: knowledge that the objectives use, such as ``logits``.
        schemes: arrangements of the schemes: ``offline``, ``online`` or ``self``.
        algorithms: further axes, such as ``contrastive``.
    """

    sources: tuple[str, ...] = ()
    schemes: tuple[str, ...] = ()
    algorithms: tuple[str, ...] = ()


@dataclass(frozen=True)
class TrainedResult:
    """Test scores of one trained arm of a run or a search.

    Attributes:
        method: name of the method, baseline or ``teacher``.
        kind: role of the arm in the comparison.
        setting: task, data and metric.
        student: network in words; of the teacher for ``kind="teacher"``.
        training: length of the training in words.
        seeds: seeds, in the order of ``values``.
        values: test score of each seed.
        axes: position on the axes of the survey.
        folder: folder of the run or search.
        recipe: file of the recipe in that folder.
        origin: command that wrote the folder: ``run`` or ``search``.
        curve: pairs of optimizer step and mean validation score.
        parameters: number of parameters; None if it was not recorded.
        num_bytes: size of the weights; None if it was not recorded.
        latency: median latency in ms; None if it was not measured.
        copies: further folders with the same arm and the same scores.
    """

    method: str
    kind: ResultKind
    setting: Setting
    student: str
    training: str
    seeds: tuple[int, ...]
    values: tuple[float, ...]
    axes: Axes
    folder: Path
    recipe: str
    origin: Literal["run", "search"]
    curve: tuple[tuple[int, float], ...] = ()
    parameters: float | None = None
    num_bytes: float | None = None
    latency: float | None = None
    copies: tuple[Path, ...] = field(default=(), compare=False)

    @property
    def mean(self) -> float:
        """Mean test score."""
        return sum(self.values) / len(self.values)

    @property
    def interval(self) -> list[float] | None:
        """Ends of the 95 % interval of Student's t for the mean; None for one seed."""
        # The interval of a mean is that of its differences from zero.
        ends: list[float] | None = paired_gain(self.values, [0.0] * len(self.values))["interval"]
        return ends

    def scores(self) -> dict[int, float]:
        """Test score by seed."""
        return dict(zip(self.seeds, self.values, strict=True))

    def to_json(self) -> dict[str, Any]:
        """Return the facts of this result for ``--json``."""
        return {
            "method": self.method,
            "kind": self.kind,
            "student": self.student,
            "training": self.training,
            "seeds": list(self.seeds),
            "test": summarize(self.values) | {"interval": self.interval},
            "sources": list(self.axes.sources),
            "schemes": list(self.axes.schemes),
            "algorithms": list(self.axes.algorithms),
            "parameters": self.parameters,
            "bytes": self.num_bytes,
            "latency_ms": self.latency,
            "folder": str(self.folder),
            "recipe": str(self.folder / self.recipe),
            "origin": self.origin,
            "copies": [str(folder) for folder in self.copies],
        }


@dataclass(frozen=True)
class SettingGroup:
    """Results of one setting, the best mean first; the teacher is not ranked and comes last."""

    setting: Setting
    results: tuple[TrainedResult, ...]


def group_by_setting(results: Iterable[TrainedResult]) -> list[SettingGroup]:
    """Group results by setting, in the order of their first occurrence.

    An arm that several runs share (same method, network, training, seeds and scores) becomes one
    result.
    """
    results = list(results)
    sizes: dict[str, set[Any]] = {}
    digests: dict[str, set[Any]] = {}
    for setting in (result.setting for result in results):
        sizes.setdefault(setting.key, set()).add(setting.num_test)
        digests.setdefault(setting.key, set()).add(setting.test_digest)
    by_setting: dict[Any, list[TrainedResult]] = {}
    for result in results:
        setting = result.setting
        num_test = setting.num_test or _only(sizes[setting.key])
        digest = setting.test_digest or _only(digests[setting.key])
        by_setting.setdefault((setting.key, num_test, digest), []).append(result)
    return [
        _group(members, has_other_data=len(digests[key] - {None}) > 1)
        for (key, _, _), members in by_setting.items()
    ]


def _only(recorded: set[Any]) -> Any:
    """Return the value on which all results that recorded one agree, otherwise None.

    Results of earlier versions, which did not record it, join these results.
    """
    values = recorded - {None}
    return next(iter(values)) if len(values) == 1 else None


def _group(members: list[TrainedResult], has_other_data: bool) -> SettingGroup:
    """Return the ranked results of one setting, without copies.

    Args:
        members: results of the setting.
        has_other_data: whether another setting differs in the content of the test data only,
            which the details then name.
    """
    equal_results: dict[Any, list[TrainedResult]] = {}
    for result in members:
        # A teacher whose weights an earlier run trained has no length of training.
        training = "" if result.kind == "teacher" else result.training
        same = (result.kind, result.method, result.student, training, result.seeds, result.values)
        equal_results.setdefault(same, []).append(result)
    merged = [_merged(copies) for copies in equal_results.values()]
    setting = max(
        (row.setting for row in members), key=lambda one: (one.num_test or 0, one.test_digest or "")
    )
    if has_other_data:
        name = f"test data {(setting.test_digest or 'not recorded')[:12]}"
        setting = replace(setting, details=", ".join(filter(None, (setting.details, name))))
    sign = -1 if setting.higher_is_better else 1
    ranked = sorted(merged, key=lambda row: (row.kind == "teacher", sign * row.mean))
    return SettingGroup(setting, tuple(ranked))


def _merged(copies: list[TrainedResult]) -> TrainedResult:
    """Return the result with the most complete cost, with the folders of its copies."""
    best = max(copies, key=lambda row: (row.latency is not None, row.parameters is not None))
    return replace(best, copies=tuple(row.folder for row in copies if row is not best))
