"""Evaluation of a task with the metrics that a recipe adds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

from torch import nn

from instil import catalogue
from instil.cards import suggestion
from instil.core import Batch, Outputs
from instil.metrics.bases.metric import Metric
from instil.tasks.bases.batch_reader import BatchReader

Evaluation = tuple[dict[str, float], dict[str, Any]]
"""Metrics, and details for plots."""


class ExtraMetrics(BatchReader):
    """Base class of tasks: evaluation with the metrics that a recipe adds.

    Attributes:
        headline: metric for the comparison of arms.
        own_headline: the headline of the task where the recipe has another one.
        higher_is_better: direction of the headline metric.
        secondary: metrics that are shown with the headline metric.
        has_open_classes: whether classes only group the samples that are compared, so that a split
            may have classes of its own.
        further_headlines: other metrics of the task that may be the headline; larger is better.
        metrics: metrics of the recipe by name.
    """

    headline: str = "accuracy"
    own_headline: str | None = None
    higher_is_better: bool = True
    secondary: tuple[str, ...] = ()
    has_open_classes: ClassVar[bool] = False
    further_headlines: ClassVar[tuple[str, ...]] = ()
    metrics: Mapping[str, Metric] = {}
    _is_measuring: bool = False
    _missing: dict[str, str]

    def evaluate(
        self, net: nn.Module, batches: Iterable[Any], teacher: nn.Module | None = None
    ) -> Evaluation:
        """Compute metrics and details of a network in eval mode.

        Args:
            net: network to evaluate.
            batches: batches of the test data.
            teacher: network for ``agreement``, if there is one.
        """
        raise NotImplementedError

    def add_metrics(
        self,
        metrics: Mapping[str, Metric],
        headline: str | None = None,
        conditions: Sequence[str] = (),
    ) -> None:
        """Add metrics to the evaluation of this task.

        Args:
            metrics: metrics by name.
            headline: name of one of them, or of a condition, that replaces the headline metric;
                None for the task's.
            conditions: names of test conditions, such as attacks, under which a scheme measures
                the headline of the task.

        Raises:
            ValueError: if ``headline`` is none of these metrics and conditions, and none of the
                task's.
        """
        self.metrics = dict(metrics)
        own = self.headline
        if headline in self.further_headlines:
            self.headline = str(headline)
            self.higher_is_better = True
        elif headline is not None and headline in conditions and headline not in metrics:
            self.headline = headline
        elif headline not in (None, own):
            if headline not in metrics:
                names = [*metrics, own, *self.further_headlines, *conditions]
                hint = suggestion(str(headline), names, is_listed=True)
                if headline in catalogue.names("metric"):
                    hint = f" Add metrics: [{headline}]"
                raise ValueError(
                    f"headline: no metric of this recipe is named '{headline}'. Expected one of "
                    f"{', '.join(dict.fromkeys(names))}.{hint}"
                )
            self.headline = str(headline)
            self.higher_is_better = metrics[self.headline].higher_is_better
        self.own_headline = own
        shown = dict.fromkeys((own, *self.secondary, *metrics))
        self.secondary = tuple(name for name in shown if name != self.headline)

    def measure(
        self, net: nn.Module, batches: Iterable[Any], teacher: nn.Module | None = None
    ) -> Evaluation:
        """Compute the metrics of the task and those that a recipe adds.

        A metric that reads outputs which the network does not have, such as the embedding of a
        teacher, is left out.

        Args:
            net: network to evaluate.
            batches: batches of the test data.
            teacher: network for ``agreement``, if there is one.

        Raises:
            ValueError: if a metric is undefined for these data.
        """
        if not self.metrics:
            return self.evaluate(net, batches, teacher)
        for metric in self.metrics.values():
            metric.reset()
        self._missing = {}
        self._is_measuring = True
        try:
            values, details = self.evaluate(net, batches, teacher)
        finally:
            self._is_measuring = False
        for name, metric in self.metrics.items():
            if name not in self._missing:
                values[name] = _call(name, metric.compute)
        return values, details

    def observe(self, outputs: Outputs, batch: Batch) -> None:
        """Add a batch to the metrics of the recipe, if ``measure`` is running.

        Args:
            outputs: outputs of the network that is evaluated.
            batch: the batch.
        """
        if not self._is_measuring:
            return
        for name, metric in self.metrics.items():
            missing = missing_entries(metric, outputs, batch)
            if missing:
                self._missing[name] = missing
            else:
                _call(name, metric.update, outputs, batch)

    def check_metrics(self, net: nn.Module, batch: Any) -> None:
        """Check that the metrics of the recipe can be computed.

        Args:
            net: network to evaluate.
            batch: batch of the validation data.

        Raises:
            ValueError: for outputs or labels that do not exist or have another form, and for a
                name that a metric of the task has.
        """
        own, _ = self.evaluate(net, [batch])
        for name, metric in self.metrics.items():
            if name in own:
                raise ValueError(
                    f"metrics.{name}: the task has a metric of this name. Expected another name. "
                    f"Write {name}2: {{type: ...}}"
                )
            metric.reset()
        self._missing = {}
        self._is_measuring = True
        try:
            self.evaluate(net, [batch])
        finally:
            self._is_measuring = False
        for name, missing in self._missing.items():
            raise ValueError(f"metrics.{name}: {missing}")


def missing_entries(metric: Metric, outputs: Outputs, batch: Batch) -> str:
    """Return a sentence on outputs or labels that a metric reads and that do not exist.

    Args:
        metric: the metric.
        outputs: outputs of a network.
        batch: its batch.
    """
    for group, entries, title in (
        (metric.roles, outputs, "the network has no output"),
        (metric.batch_keys, batch, "a batch has no entry"),
    ):
        missing = [name for name in group if name not in entries]
        if missing:
            return f"{title} '{missing[0]}'. Expected one of {', '.join(map(str, entries))}"
    return ""


def _call(name: str, function: Any, *arguments: Any) -> Any:
    """Call a method of a metric; its errors get the recipe path."""
    try:
        return function(*arguments)
    except ValueError as error:
        raise ValueError(f"metrics.{name}: {error}") from error
