"""Weights that a training evaluates and exports: the last ones, their average or the best."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

from instil.cards import form_of
from instil.cards.closest import did_you_mean
from instil.core import Net, Scheme
from instil.engine import checkpoints
from instil.engine.processes import broadcast_object
from instil.engine.weight_copies import WeightAverage, WeightCopy
from instil.training.selection import Selection
from instil.training.settings import Training


class ExportedWeights:
    """Average of the weights, weights of the best evaluation, and early stopping.

    Args:
        scheme: scheme after ``Engine.setup``.
        training: settings of its training.
        has_evaluation: whether the training evaluates its net.

    Raises:
        ValueError: if a setting needs an evaluation or a metric that the training does not have.
    """

    def __init__(self, scheme: Scheme, training: Training, has_evaluation: bool) -> None:
        self.training = training
        self.average: WeightAverage | None = None
        self.best: WeightCopy | None = None
        self.selection: Selection | None = None
        if training.average is not None:
            self.average = WeightAverage(scheme, training.average)
        if training.keep == "best":
            self.best = WeightCopy(scheme)
        if training.selects:
            key = "keep" if self.best is not None else "early_stopping"
            if not has_evaluation:
                raise ValueError(
                    f"{key}: needs an evaluation. Expected evaluate, got None. Give validation "
                    "data, or evaluate= in fit."
                )
            if training.metric is None:
                raise ValueError(
                    f"{key}: needs a metric. Expected the name of a value that evaluate returns, "
                    "got None. Set Training(metric=...) and higher_is_better."
                )
            self.selection = Selection(training.higher_is_better, training.early_stopping)

    @property
    def is_finished(self) -> bool:
        """Whether the training ends early."""
        return self.selection is not None and self.selection.is_finished

    def update(self, step: int) -> None:
        """Add the weights after a step to the average; ``step`` is the number of steps done."""
        if self.average is not None:
            self.average.update(step)

    def evaluate(
        self,
        export: Callable[[], Net],
        evaluate: Callable[[Net], Mapping[str, float]],
        epoch: int,
        step: int,
    ) -> dict[str, Any]:
        """Evaluate the exported net, and keep its weights if they are the best so far.

        Args:
            export: returns the exported net.
            evaluate: returns its metrics.
            epoch: number of epochs done.
            step: number of steps done.

        Returns:
            Entries of the record: ``validation``, and with a selection ``best`` (epoch, step and
            value of the best evaluation) and ``stopped_early``.

        Raises:
            ValueError: if ``evaluate`` returns no metrics by name, or not the selected one.
        """
        applied: AbstractContextManager[None] = nullcontext()
        if self.average is not None:
            applied = self.average.applied()
        with applied:
            metrics = _metrics(evaluate(export()))
            if self.selection is None:
                return {"validation": metrics}
            is_best = self.selection.update(self._value(metrics), epoch, step)
            if is_best and self.best is not None:
                self.best.capture()
        best = self.selection.best
        record: dict[str, Any] = {"validation": metrics}
        record["best"] = None if best is None else asdict(best)
        if self.is_finished:
            record["stopped_early"] = True
        return record

    def _value(self, metrics: Mapping[str, float]) -> float:
        """Value of the metric, the same on every rank, so that all ranks end together."""
        name = self.training.metric or ""
        if name not in metrics:
            raise ValueError(
                f"metric: unknown metric '{name}'. Expected one of {', '.join(metrics) or 'none'}."
                f"{did_you_mean(name, metrics)}"
            )
        return float(broadcast_object(float(metrics[name])))

    def sync_buffers(self) -> None:
        """Average the buffers of the average over ranks."""
        if self.average is not None:
            self.average.sync_buffers()

    def apply(self) -> None:
        """Set the scheme to the weights that are exported."""
        if self.best is not None and self.best.values:
            self.best.apply()
        elif self.average is not None:
            self.average.apply()

    def state(self) -> dict[str, Any]:
        """Return the state for a checkpoint. Call it on every rank."""
        state: dict[str, Any] = {}
        if self.average is not None:
            state["average"] = self.average.state()
        if self.selection is not None:
            state["selection"] = self.selection.state()
        if self.best is not None:
            state["best"] = self.best.state()
        return state

    def restore(self, content: Mapping[str, Any], checkpoint: Path) -> None:
        """Continue from a checkpoint.

        Args:
            content: its content, with the entries of ``state``.
            checkpoint: its file, for messages.

        Raises:
            ValueError: if an entry is missing or of another scheme.
        """
        parts = {"average": self.average, "selection": self.selection, "best": self.best}
        for name, part in parts.items():
            if part is None:
                continue
            if name not in content:
                raise ValueError(
                    f"checkpoint {checkpoint}: is of a training with other settings: it has no "
                    f"'{name}'. {checkpoints.REMEDY}."
                )
            # Before the first evaluation there are no best weights.
            if content[name] or name != "best":
                try:
                    part.restore(content[name])
                except (KeyError, TypeError, ValueError) as error:
                    raise ValueError(f"checkpoint {checkpoint}: {name}: {error}") from error


def _metrics(value: Any) -> dict[str, float]:
    """Metrics as a dict; ValueError for another type."""
    if not isinstance(value, Mapping):
        raise ValueError(f"evaluate: Expected metrics by name, got {form_of(value)}")
    return dict(value)
