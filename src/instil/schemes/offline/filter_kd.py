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

from instil.cards import form_of
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
from instil.modules.prediction_table import PredictionTable


class FilteredModel(nn.Module):
    """A model with the table of its predictions; ``_call_with_table`` reads both."""

    def __init__(self, model: nn.Module, table: PredictionTable):
        super().__init__()
        self.model = model
        self.table = table


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
        tags=("new_architecture", "predictions_by_index"),
        deviations="The table is the one at the end of the teacher's training, or at "
        "teacher.checkpoint_at. The authors' code also saves it at the epoch of the best test "
        "accuracy. It multiplies the student's loss by 2: set the weight of kd to 2 for its scale. "
        "For samples that the teacher was not trained on, the logits are the teacher's own.",
        equation=r"q_n \leftarrow (1 - \alpha)\, q_n + \alpha\, p^t_\tau(x_n) "
        r"\text{ during the teacher's training}, \quad "
        r"\mathcal{L} = \mathrm{KL}(q_n \Vert p^s(x_n))",
        use="For noisy labels, or a teacher that fits its training labels perfectly: early "
        "predictions, before it memorises a wrong label, stay in the average.",
        pitfalls="The memory of the average is about 1 / smoothing epochs: raise smoothing for "
        "short trainings, where the predictions of the first epochs dominate otherwise. The table "
        "ignores the augmentation of the student's image. Only logits come from the table; "
        "features are those of the trained teacher.",
    )

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
                "number of rows of the table, above the largest index; null: from the recipe's data"
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
        logits = outputs["logits"]
        label = batch.get("label")
        one_class = label is None or (label.ndim == 1 and not label.is_floating_point())
        if not isinstance(logits, Tensor) or logits.ndim != 2 or not one_class:
            raise ValueError(
                "scheme: predictions are recorded per sample. Expected logits (N, C) and one class "
                f"per sample, got {form_of(logits)} as logits and {form_of(label)} as labels"
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
        """Compute the losses, with the predictions of this step to record."""
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
    # Only training batches have a step: an index of test data refers to a different sample.
    if "step" not in batch or "logits" not in outputs:
        return outputs
    average = model.table(batch["index"])
    logits = to_float32(outputs["logits"])
    # Probabilities that underflow to 0 get a finite logit.
    recorded = temperature * average.clamp_min(torch.finfo(average.dtype).tiny).log()
    # A row of zeros belongs to a sample that the teacher was not trained on.
    has_prediction = average.sum(-1, keepdim=True) > 0
    return {**outputs, "logits": torch.where(has_prediction, recorded.to(logits), logits)}


def _inside(paths: str | list[str]) -> str | list[str]:
    """Paths of taps in the wrapped model."""
    return f"model.{paths}" if isinstance(paths, str) else [f"model.{path}" for path in paths]
