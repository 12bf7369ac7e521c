"""Settings of a training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import cos, floor, pi
from numbers import Integral
from typing import Literal

from instil.cards import form_of
from instil.engine import Optimization
from instil.engine.learning_rates import TorchSchedule
from instil.training.selection import EarlyStopping

COUNTS = (
    "steps",
    "accumulate",
    "evaluate_every",
    "evaluate_steps",
    "checkpoint_every",
    "checkpoint_steps",
    "log_steps",
)


@dataclass(frozen=True)
class Training:
    """Length, optimization, precision and reports of a training.

    Attributes:
        epochs: number of passes over the loader; give this or ``steps``.
        steps: number of optimizer steps.
        optimizer: optimization of every learner that ``optimizers`` does not name.
        optimizers: optimization by learner.
        schedule: learning rate after the warm-up: ``"cosine"``, ``"constant"``, or a schedule of
            torch, which is counted from the first step and multiplied by the warm-up.
        warmup: share of the steps with a linearly growing learning rate, in [0, 1].
        until: progress in (0, 1] at which training stops, at the end of that epoch. Every schedule
            is that of the full length.
        accumulate: number of micro-batches per step.
        allow_coupled_cut: a loss that couples its batch may see one micro-batch only.
        precision: precision of forward passes.
        clip: largest norm of a learner's gradient; None: no limit.
        shard: shard weights, gradients and optimizer states over processes.
        shard_group: number of processes that share one copy of them, with ``shard``; every group
            has a copy of its own (HSDP). None: all processes.
        compile: compile the nets.
        device: torch device, or ``auto``.
        seed: seed of keyed draws (``instil.core.keyed_uniform``); the global random state belongs
            to the caller.
        evaluate_every: number of epochs between evaluations; the last epoch is always evaluated.
        evaluate_steps: number of steps between evaluations; replaces ``evaluate_every``.
        checkpoint_every: number of epochs between checkpoints; None: none.
        checkpoint_steps: number of steps between checkpoints; None: none. If one of both is set,
            the end of the training has a checkpoint too.
        checkpoint_minutes: largest age of the last checkpoint in minutes; None: no limit.
        log_steps: number of steps between records of losses, learning rate and speed within an
            epoch; None: none. Every epoch and evaluation has a record, too.
        sync_batch_norm: over several processes, BatchNorm layers use the statistics of the global
            batch.
        activation_checkpointing: the repeated blocks of trained networks keep only their inputs,
            and are computed again in the backward pass: the same gradients for less memory and
            about a third more time.
        average: decay in (0, 1) of an exponential moving average of weights and buffers, which is
            evaluated and exported instead of the last weights. None: the last weights. The first n
            steps use the decay (1 + n) / (10 + n) if it is smaller.
        keep: weights that are exported: the last ones, or those of the best evaluation.
        early_stopping: end of a training whose metric no longer improves; None: its full length.
        metric: metric of ``evaluate`` that ``keep`` and ``early_stopping`` compare.
        higher_is_better: direction of the metric.

    Raises:
        ValueError: if a value is out of range, or both or none of ``epochs`` and ``steps`` are
            given.

    Example:
        >>> Training(epochs=2, warmup=0.5).lr_factor(0.25)
        0.5
    """

    epochs: int | None = None
    steps: int | None = None
    optimizer: Optimization = field(default_factory=Optimization)
    optimizers: Mapping[str, Optimization] = field(default_factory=dict)
    schedule: Literal["cosine", "constant"] | TorchSchedule = "cosine"
    warmup: float = 0.0
    until: float = 1.0
    accumulate: int = 1
    allow_coupled_cut: bool = False
    precision: Literal["float32", "bfloat16"] = "float32"
    clip: float | None = None
    shard: bool = False
    shard_group: int | None = None
    compile: bool = False
    device: str = "auto"
    seed: int = 0
    evaluate_every: int = 1
    evaluate_steps: int | None = None
    checkpoint_every: int | None = None
    checkpoint_steps: int | None = None
    checkpoint_minutes: float | None = None
    log_steps: int | None = None
    sync_batch_norm: bool = True
    activation_checkpointing: bool = False
    average: float | None = None
    keep: Literal["last", "best"] = "last"
    early_stopping: EarlyStopping | None = None
    metric: str | None = None
    higher_is_better: bool = True

    def __post_init__(self) -> None:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("training needs epochs or steps, one of them")
        self._check_counts()
        self._check_optimizers()
        self._check_schedule()
        if self.keep not in ("last", "best"):
            raise ValueError(f"keep: Expected last or best, got '{self.keep}'.")
        if self.clip is not None and not self.clip > 0:
            raise ValueError(f"clip: Expected a number above 0 or None, got {self.clip}")
        if self.checkpoint_minutes is not None and not self.checkpoint_minutes > 0:
            raise ValueError(
                "checkpoint_minutes: expected a number above 0 or None, got "
                f"{self.checkpoint_minutes}"
            )
        if self.average is not None and not 0 < self.average < 1:
            raise ValueError(
                f"average: Expected a number above 0 and below 1, or None, got {self.average}. "
                "Usual values are 0.99 to 0.9999"
            )
        if self.shard_group is not None and not (self.shard and self.shard_group > 1):
            raise ValueError(
                "shard_group: Expected a number of processes above 1 together with shard, got "
                f"{self.shard_group} with shard={self.shard}"
            )
        if not 0 < self.until <= 1:
            raise ValueError(f"until is a share of the steps above 0 and up to 1, not {self.until}")
        if not 0 <= self.warmup <= 1:
            raise ValueError(f"warmup is a share of the steps between 0 and 1, not {self.warmup}")

    def _check_counts(self) -> None:
        for name in ("epochs", "seed", *COUNTS):
            count = getattr(self, name)
            if count is None:
                continue
            if not isinstance(count, Integral) or isinstance(count, bool):
                raise ValueError(f"{name}: Expected a whole number, got {count!r}")
            if name in COUNTS and count < 1:
                raise ValueError(f"{name} must be at least 1, not {count}")

    def _check_optimizers(self) -> None:
        named = {f"optimizers.{name}": one for name, one in self.optimizers.items()}
        for name, optimizer in {"optimizer": self.optimizer, **named}.items():
            if not isinstance(optimizer, Optimization):
                raise ValueError(
                    f"{name}: Expected an Optimization, such as Optimization('sgd'), got "
                    f"{form_of(optimizer)}. The optimizer of torch is created from it"
                )

    def _check_schedule(self) -> None:
        if isinstance(self.schedule, TorchSchedule):
            if self.schedule.interval == "epoch" and not (self.epochs or self.schedule.epochs):
                raise ValueError(
                    "schedule.interval: 'epoch' needs the length of the training in epochs. "
                    "Expected step, or epochs in place of steps."
                )
        elif self.schedule not in ("cosine", "constant"):
            raise ValueError(
                f"schedule: Expected cosine, constant or a TorchSchedule, got '{self.schedule}'."
            )

    @property
    def selects(self) -> bool:
        """Whether the training compares its evaluations."""
        return self.keep == "best" or self.early_stopping is not None

    def lr_factor(self, progress: float) -> float:
        """Factor of every learning rate at ``progress``: a linear warm-up, then the schedule.

        A schedule of torch is not part of the factor, see ``learning_rate``.
        """
        if progress < self.warmup:
            return progress / self.warmup
        after = (progress - self.warmup) / (1 - self.warmup) if self.warmup < 1 else 1.0
        return 0.5 * (1 + cos(pi * after)) if self.schedule == "cosine" else 1.0

    def optimization_of(self, learner: str) -> Optimization:
        """Optimizer of a learner: its own one, or that of all others.

        Args:
            learner: name of the learner.
        """
        return self.optimizers.get(learner, self.optimizer)

    def learning_rate(self, initial: float, progress: float, num_steps: int) -> float:
        """Learning rate of a parameter group.

        Args:
            initial: its learning rate without schedule and warm-up.
            progress: share of the steps that are done, in [0, 1].
            num_steps: number of steps of the whole training.

        Raises:
            ValueError: if a schedule of torch ends before the training.
        """
        factor = self.lr_factor(progress)
        schedule = self.schedule
        if not isinstance(schedule, TorchSchedule):
            return initial * factor
        length = num_steps
        if schedule.interval != "step":
            length = schedule.epochs or self.epochs or num_steps
        # A product such as 3 / 10 * 10 may lie just below the integer.
        position = floor(progress * length + 1e-6)
        return factor * schedule.rate(initial, position, length)
