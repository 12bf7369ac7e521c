"""Early stopping and the weights of the best evaluation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from instil.core import Net
from instil.training.fit import FitResult, Training, TrainState, fit
from instil.training.selection import EarlyStopping, Selection
from tests.training.test_average import BEST, loader, scheme, training


def run_of(values: list[float], **options: Any) -> Selection:
    selection = Selection(**options)
    for index, value in enumerate(values):
        selection.update(value, index + 1, 10 * (index + 1))
        if selection.is_finished:
            break
    return selection


@pytest.mark.parametrize(
    ("values", "options", "epoch", "num_evaluations"),
    [
        ([1, 3, 2, 3], {}, 2, 4),
        ([1, 3, 2, 3], {"higher_is_better": False}, 1, 4),
        ([1, 3, 2, 2, 5], {"early_stopping": EarlyStopping(2)}, 2, 4),
        ([1, 3, 2, 4, 4, 4, 9], {"early_stopping": EarlyStopping(2)}, 4, 6),
        # Small improvements are the best weights, but do not prolong the training.
        ([1, 1.1, 1.2, 9], {"early_stopping": EarlyStopping(2, 0.5)}, 3, 3),
        # Together they do.
        ([1, 1.3, 1.6, 1.7, 1.7], {"early_stopping": EarlyStopping(2, 0.5)}, 4, 5),
        ([float("nan"), 1, float("nan")], {}, 2, 3),
        ([float("inf"), float("inf")], {}, 1, 2),
    ],
)
def test_best_evaluation_and_end(
    values: list[float], options: dict[str, Any], epoch: int, num_evaluations: int
) -> None:
    selection = Selection(**options)
    count = 0
    for index, value in enumerate(values):
        selection.update(value, index + 1, 0)
        count += 1
        if selection.is_finished:
            break
    assert selection.best is not None
    assert selection.best.epoch == epoch
    assert count == num_evaluations


def test_all_nan_has_no_best() -> None:
    selection = run_of([float("nan")] * 3, early_stopping=EarlyStopping(2))
    assert selection.best is None
    assert selection.is_finished


class Evaluation:
    """Evaluation that returns given values in turn and records the evaluated head."""

    def __init__(self, values: list[float]) -> None:
        self.values = iter(values)
        self.heads: list[torch.Tensor] = []

    def __call__(self, net: Net) -> dict[str, float]:
        self.heads.append(net.model.head.weight.detach().clone())
        return {"error": next(self.values)}


VALUES = [3.0, 1.0, 2.0, 1.5, 1.2, 4.0]


@pytest.mark.parametrize("average", [None, 0.5])
def test_weights_of_the_best_evaluation_are_exported(average: float | None) -> None:
    evaluation = Evaluation(VALUES)
    options = training(epochs=6, average=average, **BEST)
    result = fit(scheme(), loader(), options, evaluate=evaluation)
    assert torch.equal(result.net.model.head.weight, evaluation.heads[1])
    assert not torch.equal(evaluation.heads[-1], evaluation.heads[1])
    assert [record["best"]["epoch"] for record in result.records] == [1, 2, 2, 2, 2, 2]
    assert result.records[-1]["best"] == {"epoch": 2, "step": 8, "value": 1.0}


def test_batch_norm_statistics_are_those_of_the_best_evaluation() -> None:
    means: list[torch.Tensor] = []

    def evaluate(net: Net) -> dict[str, float]:
        means.append(net.model.norm.running_mean.clone())
        return {"error": float(len(means))}

    result = fit(scheme(), loader(), training(average=None, **BEST), evaluate=evaluate)
    assert torch.equal(result.net.model.norm.running_mean, means[0])
    assert result.net.model.norm.num_batches_tracked == 4


@pytest.mark.parametrize("keep", ["last", "best"])
def test_training_ends_early(keep: str) -> None:
    evaluation = Evaluation(VALUES)
    rule = EarlyStopping(patience=2)
    options = training(epochs=6, average=None, **(BEST | {"keep": keep, "early_stopping": rule}))
    result = fit(scheme(), loader(), options, evaluate=evaluation)
    assert [record["epoch"] for record in result.records] == [1, 2, 3, 4]
    assert [record.get("stopped_early") for record in result.records] == [None, None, None, True]
    exported = evaluation.heads[1 if keep == "best" else 3]
    assert torch.equal(result.net.model.head.weight, exported)


def test_training_ends_within_an_epoch() -> None:
    rule = EarlyStopping(patience=1)
    options = training(average=None, evaluate_steps=3, early_stopping=rule, **BEST)
    result = fit(scheme(), loader(), options, evaluate=Evaluation([1.0, 2.0]))
    evaluated = [record["step"] for record in result.records if "validation" in record]
    assert evaluated == [3, 6]
    assert result.records[-1]["step"] == 6


def stop_after(step: int) -> Callable[[TrainState], None]:
    def stop(state: TrainState) -> None:
        if state.step == step:
            raise KeyboardInterrupt

    return stop


def by_head(net: Net) -> dict[str, float]:
    """Return a value that depends on the weights only, so that a resumed training repeats it."""
    return {"error": float(net.model.head.weight.detach().sin().sum())}


@pytest.mark.parametrize("average", [None, 0.5])
@pytest.mark.parametrize("step", [3, 7, 9, 14])
def test_resumed_training_selects_the_same_weights(
    step: int, average: float | None, tmp_path: Path
) -> None:
    rule = EarlyStopping(patience=3)
    options = training(epochs=8, average=average, checkpoint_steps=2, early_stopping=rule, **BEST)
    straight = fit(scheme(), loader(), options, evaluate=by_head)
    path = tmp_path / "checkpoint.pt"

    def go_on(**more: Any) -> FitResult:
        return fit(scheme(), loader(), options, evaluate=by_head, checkpoint=path, **more)

    with pytest.raises(KeyboardInterrupt):
        go_on(on_step=stop_after(step))
    resumed = go_on()
    for name, value in straight.net.state_dict().items():
        assert torch.equal(resumed.net.state_dict()[name], value), name
    assert list(without_time(resumed)) == list(without_time(straight))
    # A training that ended early is not continued.
    again = go_on(on_step=stop_after(len(straight.records) * 4 + 1))
    assert list(without_time(again)) == list(without_time(straight))


def without_time(result: FitResult) -> Iterator[dict[str, Any]]:
    for record in result.records:
        yield record | {"seconds": 0, "speed": {}}


def test_selection_needs_an_evaluation_and_its_metric() -> None:
    with pytest.raises(ValueError, match="keep: needs an evaluation"):
        fit(scheme(), loader(), training(**BEST))
    rule = EarlyStopping()
    with pytest.raises(ValueError, match="early_stopping: needs a metric"):
        fit(scheme(), loader(), training(early_stopping=rule), evaluate=by_head)
    options = training(early_stopping=rule, metric="eror")
    with pytest.raises(ValueError, match=r"metric: unknown metric 'eror'.*error"):
        fit(scheme(), loader(), options, evaluate=by_head)


@pytest.mark.parametrize("options", [{"patience": 0}, {"min_delta": -0.1}])
def test_rule_out_of_range_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"early_stopping.*Expected a number of at least"):
        EarlyStopping(**options)


def test_keep_has_two_values() -> None:
    with pytest.raises(ValueError, match="keep: Expected last or best, got 'first'"):
        Training(epochs=1, keep="first")  # type: ignore[arg-type]
