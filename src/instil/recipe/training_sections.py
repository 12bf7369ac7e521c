"""Sections of a recipe that describe losses and training."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Lt
from pydantic import AfterValidator, ValidationError, model_validator

from instil.cards import Fraction, PositiveInt
from instil.core import Positive, Schedule
from instil.engine.learning_rates import TorchSchedule
from instil.recipe.base_sections import OpenSection, Section
from instil.recipe.errors import RecipeError, problem_lines
from instil.recipe.overrides import merge
from instil.recipe.schedules import SCHEDULED

DEFAULT_EPOCHS = 20
PLAIN_SCHEDULES = ("cosine", "constant")


class WeightingConfig(OpenSection):
    """Weighting of samples, or balance of losses. Further keys are its options."""

    type: str
    """Name in the catalogue."""


class ObjectiveConfig(OpenSection):
    """An objective. Further keys are its options."""

    type: str
    """Name in the catalogue. Default: the key of the section."""

    weight: Annotated[float | Schedule, SCHEDULED] = 1.0
    """Factor of the loss, or a schedule."""

    sample_weight: WeightingConfig | None = None
    """Weighting of the samples. Null: all samples have the same weight."""


def _require_match(group: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(group.get("match"), str):
        raise ValueError(
            "match is missing. Expected a pattern for names of parameters, such as head.*"
        )
    return group


def _require_schedule(value: str | dict[str, Any]) -> str | dict[str, Any]:
    """Return ``cosine``, ``constant``, or the section of a schedule of torch that can be built."""
    section = {"type": value} if isinstance(value, str) else value
    name = section.get("type")
    if not isinstance(name, str):
        raise ValueError("type is missing. Expected a name such as StepLR")
    if name in PLAIN_SCHEDULES and len(section) == 1:
        return name
    if name in PLAIN_SCHEDULES:
        raise ValueError(f"{name} has no options. Expected only its name")
    if "length" in section:
        _check_schedule_length(section)
    torch_schedule(section)
    return section


def _check_schedule_length(section: dict[str, Any]) -> None:
    """Check the key ``length`` of the section of a schedule.

    Raises:
        ValueError: for another value than a number of epochs, and for options that count steps.
    """
    length = section["length"]
    if isinstance(length, bool) or not isinstance(length, int) or length < 1:
        raise ValueError(f"length: Expected a whole number of epochs of at least 1, got {length!r}")
    if section.get("interval") == "step":
        raise ValueError("length: the options count steps (interval). Leave one of them out")


def torch_schedule(section: dict[str, Any], epochs: int | None = None) -> TorchSchedule:
    """Return the schedule of torch that a section describes.

    Args:
        section: ``type``, options of the schedule and, optionally, ``interval`` and ``length``.
        epochs: number of epochs of the training; None: its length is given in steps.
    """
    own = ("type", "interval", "length")
    options = {key: value for key, value in section.items() if key not in own}
    length = section.get("length", epochs)
    return TorchSchedule(section["type"], options, section.get("interval"), length)


class OptimizerConfig(OpenSection):
    """An optimizer of ``torch.optim`` or bitsandbytes. Further keys are its options."""

    type: str = "adamw"
    """Name of the class, in any case, such as ``adamw`` or ``bitsandbytes:AdamW8bit``."""

    lr: Positive = 1e-3
    """Learning rate."""

    groups: list[Annotated[dict[str, Any], AfterValidator(_require_match)]] = []
    """Parameter groups: ``match``, a pattern for names of parameters, and options of the group."""


class EarlyStoppingConfig(Section):
    """End of a training whose headline metric on the validation data no longer improves."""

    patience: PositiveInt = 5
    """Number of evaluations in a row without an improvement after which the training ends."""

    min_delta: Annotated[float, Ge(0)] = 0.0
    """An improvement must be larger than this number."""


class TrainConfig(Section):
    """Length and settings of a training."""

    epochs: PositiveInt | None = None
    """Passes over the training data. Default, without ``steps``: 20."""

    steps: PositiveInt | None = None
    """Optimizer steps, instead of ``epochs``."""

    accumulate: PositiveInt = 1
    """Number of micro-batches per optimizer step."""

    precision: Literal["float32", "bfloat16"] = "float32"
    """Type of the computations inside the networks."""

    clip: Positive | None = None
    """Largest norm of the gradient. Null: no clipping. Default of the task ``language``: 1."""

    warmup: Fraction = 0.0
    """Part of the steps in which the learning rate rises from 0."""

    schedule: Annotated[str | dict[str, Any], AfterValidator(_require_schedule)] = "cosine"
    """Learning rate after the warm-up: ``cosine``, ``constant`` or ``{type: StepLR, step_size:
    10}`` with a class of ``torch.optim.lr_scheduler`` and its options. ``length`` is the number of
    epochs that they belong to, for a training whose own length is in steps."""

    optimizer: OptimizerConfig = OptimizerConfig()
    """Optimizer of all learners."""

    optimizers: dict[str, dict[str, Any]] = {}
    """Changes of the optimizer for single learners, by their name."""

    checkpoint_every: PositiveInt | None = 5
    """Epochs between checkpoints. Null: none."""

    checkpoint_steps: PositiveInt | None = None
    """Steps between checkpoints. A stopped run resumes from the last one."""

    checkpoint_minutes: Positive | None = 10
    """Largest age of the last checkpoint, so that a stopped run loses at most this time and one
    step."""

    evaluate_every: PositiveInt = 1
    """Epochs between evaluations."""

    evaluate_steps: PositiveInt | None = None
    """Steps between evaluations, instead of ``evaluate_every``."""

    log_steps: PositiveInt | None = None
    """Steps between records of losses, learning rate, speed and memory in ``metrics.jsonl``, in
    addition to those of epochs and evaluations."""

    allow_coupled_cut: bool = False
    """Whether a loss that couples the samples of a batch may see micro-batches."""

    compile: bool = False
    """Whether networks are compiled with ``torch.compile``."""

    shard: bool = False
    """Whether weights, gradients and optimizer states are sharded over processes."""

    shard_group: Annotated[int, Gt(1)] | None = None
    """Number of processes that share one copy of weights, gradients and optimizer states, such as
    those of one machine; every group has its own copy (HSDP). Null: all processes."""

    sync_batch_norm: bool = True
    """Whether BatchNorm layers use the statistics of the whole batch if several processes train."""

    activation_checkpointing: bool = False
    """Whether the repeated blocks of trained networks keep only their inputs and are computed again
    in the backward pass: the same gradients for less memory and about a third more time."""

    keep: Literal["last", "best"] = "last"
    """Weights that are exported: the last ones, or those with the best headline metric on the
    validation data."""

    early_stopping: EarlyStoppingConfig | None = None
    """When a training ends early. Null: it has its full length."""

    average: Annotated[float, Gt(0), Lt(1)] | None = None
    """Decay of a moving average of the weights, such as 0.999. The average is evaluated and
    exported. Null: the last weights."""

    @model_validator(mode="after")
    def _set_length(self) -> TrainConfig:
        if self.epochs is not None and self.steps is not None:
            raise ValueError("epochs and steps are both given; leave one out")
        if self.epochs is None and self.steps is None:
            self.epochs = DEFAULT_EPOCHS
        if self.shard_group is not None and not self.shard:
            raise ValueError("shard_group needs shard: true. Expected both, or leave it out")
        section = self.schedule if isinstance(self.schedule, dict) else {}
        is_in_epochs = section.get("interval") == "epoch" and "length" not in section
        if self.epochs is None and is_in_epochs:
            raise ValueError("schedule.interval: epoch needs epochs. Expected step")
        return self

    @model_validator(mode="after")
    def _check_optimizers(self) -> TrainConfig:
        for learner in self.optimizers:
            try:
                self.optimizer_of(learner)
            except ValidationError as error:
                section = self._merged(learner)
                # No key is unknown: further keys are options of the optimizer.
                lines = problem_lines(error, section, lambda _: ("", ()), f"optimizers.{learner}")
                raise RecipeError("\n".join(lines)) from error
        return self

    def optimizer_of(self, learner: str) -> OptimizerConfig:
        """Return the optimizer of one learner: ``optimizer``, changed by ``optimizers``."""
        return OptimizerConfig(**self._merged(learner))

    def _merged(self, learner: str) -> dict[str, Any]:
        changes = self.optimizers.get(learner, {})
        return merge(self.optimizer.model_dump(), changes)
