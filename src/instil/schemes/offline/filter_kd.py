"""A teacher that records a smoothed table of its own predictions while it is trained."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any

import torch
from annotated_types import Ge, Gt, Le
from torch import Tensor, nn
from typing_extensions import Doc

from instil.core import (
    Batch,
    Card,
    Net,
    Objective,
    Objectives,
    Outputs,
    Positive,
    Scheme,
    Update,
    item_weights,
    to_float32,
)


def smoothed_predictions(
    average: Tensor, probabilities: Tensor, smoothing: float | Tensor
) -> Tensor:
    """Update the moving averages of the predictions for some samples (Ren et al. 2022).

    Args:
        average: current averages (N, C). A row of zeros has no prediction yet.
        probabilities: predictions of this step (N, C), such as the softmax of the logits.
        smoothing: weight of the new prediction, in (0, 1].

    Returns:
        New averages (N, C): ``(1 - smoothing) * average + smoothing * probabilities``, or the new
        prediction alone in rows without an earlier one.

    Raises:
        ValueError: if the shapes differ.

    Example:
        >>> import torch
        >>> average = torch.tensor([[0.5, 0.5], [0.0, 0.0]])
        >>> smoothed_predictions(average, torch.tensor([[1.0, 0.0], [0.2, 0.8]]), 0.1)
        tensor([[0.5500, 0.4500],
                [0.2000, 0.8000]])
    """
    if average.shape != probabilities.shape:
        raise ValueError(
            "probabilities: the shape differs from the averages. Expected "
            f"{tuple(average.shape)}, got {tuple(probabilities.shape)}"
        )
    has_prediction = average.sum(-1, keepdim=True) > 0
    return torch.where(has_prediction, average.lerp(probabilities, smoothing), probabilities)


class PredictionTable(nn.Module):
    """Moving average of the predictions for each training sample.

    Args:
        num_samples: number of rows; the ``index`` of every sample is below it.
        num_classes: number of columns.
        device: device of the table.
    """

    average: Tensor

    def __init__(self, num_samples: int, num_classes: int, device: torch.device | None = None):
        super().__init__()
        self.register_buffer("average", torch.zeros(num_samples, num_classes, device=device))

    def forward(self, index: Tensor) -> Tensor:
        """Return the averages (N, C) of the samples ``index`` (N,); zeros where there is none."""
        return self.average[index]

    @torch.no_grad()
    def update(
        self, index: Tensor, probabilities: Tensor, counted: Tensor, smoothing: float
    ) -> None:
        """Record the predictions of one step.

        Args:
            index: samples (N,), each at most once.
            probabilities: their predictions (N, C).
            counted: False (N,) for samples whose row stays as it is.
            smoothing: weight of the new predictions.
        """
        average = self.average[index]
        updated = smoothed_predictions(average, probabilities, smoothing)
        self.average[index] = torch.where(counted[:, None], updated, average)


class FilteredModel(nn.Module):
    """A model with the table of its predictions; ``_call_with_table`` reads both."""

    def __init__(self, model: nn.Module, table: PredictionTable):
        super().__init__()
        self.model, self.table = model, table


class FilterKD(Scheme):
    """Train a teacher on labels and record the moving average of its predictions per sample.

    Set it as ``teacher.scheme`` of a recipe. In a training step, the exported teacher returns the
    logarithm of the table as logits of the samples that it was trained on; for other inputs it
    returns its own logits (Ren et al. 2022). The objectives are losses of labels.

    Raises:
        ValueError: without ``num_samples``; for logits other than (N, C), labels other than one
            class per sample, or a batch without ``index``.
    """

    card = Card(
        "Better Supervisory Signals by Observing Learning Paths",
        "https://arxiv.org/abs/2203.02485",
        "ICLR",
        2022,
        source="offline",
        labels=("single",),
        deviations="The table is the one at the end of the teacher's training, or at teacher.checkpoint_at. The "
        "authors' code also saves it at the epoch of the best test accuracy. It multiplies the student's loss "
        "by 2: set the weight of kd to 2 for its scale. For samples that the teacher was not trained on, the "
        "logits are the teacher's own.",
        equation=r"q_n \leftarrow (1 - \alpha)\, q_n + \alpha\, p^t_\tau(x_n) \text{ during the teacher's training}, \quad "
        r"\mathcal{L} = \mathrm{KL}(q_n \Vert p^s(x_n))",
        use="Noisy labels, or a teacher that fits its training labels perfectly: early predictions, before it "
        "memorises a wrong label, stay in the average.",
        pitfalls="The memory of the average is about 1 / smoothing epochs: raise smoothing for short trainings, where "
        "the predictions of the first epochs dominate otherwise. The table ignores how the student's image is augmented. "
        "Only logits come from the table; features are those of the trained teacher.",
    )
    exports_new_architecture = True
    predicts_by_index = True

    def __init__(
        self,
        student: nn.Module,
        objectives: Objectives | Mapping[str, Objective],
        smoothing: Annotated[
            float, Gt(0), Le(1), Doc("weight of a new prediction in the moving average")
        ] = 0.05,
        temperature: Annotated[
            Positive, Doc("softmax temperature of the recorded predictions")
        ] = 1.0,
        num_samples: Annotated[
            int,
            Ge(1),
            Doc(
                "number of rows of the table, above the largest index; null: that of the recipe's data"
            ),
        ]
        | None = None,
    ):
        super().__init__(student, None, objectives)
        self.smoothing = smoothing
        self.temperature = temperature
        self.num_samples = num_samples
        self.table: PredictionTable | None = None

    def build(self, batch: Batch) -> None:
        outputs = self.student(batch)
        logits, label = outputs["logits"], batch.get("label")
        one_class = label is None or (label.ndim == 1 and not label.is_floating_point())
        if not isinstance(logits, Tensor) or logits.ndim != 2 or not one_class:
            raise ValueError(
                "scheme: predictions are recorded per sample. Expected logits (N, C) and one class "
                f"per sample, got logits {_shape(logits)} and labels {_shape(label)}"
            )
        if self.num_samples is None:
            raise ValueError(
                "scheme.num_samples: the table needs a size. Expected a number above the largest "
                "index of a training sample, got null"
            )
        self.table = PredictionTable(self.num_samples, logits.shape[1], logits.device)
        self.objectives.build(outputs, {})

    def step(self, batch: Batch) -> Iterator[Update]:
        yield self.compute_losses(batch)

    def compute_losses(self, batch: Batch) -> Update:
        """Update of the objectives, with the predictions of this step to record."""
        outputs = self.student(batch)
        update: Update = self.objectives(outputs, {}, batch)
        if "index" not in batch:
            raise ValueError(
                "scheme: predictions are recorded per sample. Expected 'index' in the batch, got "
                f"{', '.join(batch)}. Let the data set return it"
            )
        logits = to_float32(outputs["logits"]).detach()
        update.state_updates["table.index"] = batch["index"]
        update.state_updates["table.probabilities"] = (logits / self.temperature).softmax(-1)
        update.state_updates["table.counted"] = item_weights(batch) > 0
        return update

    def after_step(self, gathered_rows: dict[str, Tensor]) -> None:
        super().after_step(gathered_rows)
        assert self.table is not None
        self.table.update(
            gathered_rows["table.index"],
            gathered_rows["table.probabilities"],
            gathered_rows["table.counted"],
            self.smoothing,
        )

    def export(self) -> Net:
        """Return the teacher with its table."""
        assert self.table is not None
        taps = {role: _inside(paths) for role, paths in self.student.taps.items()}
        call = functools.partial(
            _call_with_table,
            self.student.call,
            "roles" in inspect.signature(self.student.call).parameters,
            self.temperature,
        )
        return Net(FilteredModel(self.student.model, self.table), call, taps)


def _call_with_table(
    call: Callable[..., Outputs],
    takes_roles: bool,
    temperature: float,
    model: FilteredModel,
    batch: Batch,
    roles: frozenset[str] | None = None,
) -> Outputs:
    """Outputs of the wrapped model; in a training step with the logits of the table."""
    options: dict[str, Any] = {"roles": roles} if takes_roles else {}
    outputs = call(model.model, batch, **options)
    # `fit` adds the step to training batches alone: an index of test data means another sample.
    if "step" not in batch or "logits" not in outputs:
        return outputs
    average = model.table(batch["index"])
    logits = to_float32(outputs["logits"])
    recorded = temperature * average.clamp_min(torch.finfo(average.dtype).tiny).log()
    has_prediction = average.sum(-1, keepdim=True) > 0
    return {**outputs, "logits": torch.where(has_prediction, recorded.to(logits), logits)}


def _inside(paths: str | list[str]) -> str | list[str]:
    """Paths of taps in the wrapped model."""
    return f"model.{paths}" if isinstance(paths, str) else [f"model.{path}" for path in paths]


def _shape(value: Any) -> str:
    return str(tuple(value.shape)) if isinstance(value, Tensor) else type(value).__name__
