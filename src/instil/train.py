"""The one loop: ``fit`` trains any scheme on any loader."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterable, Mapping, Sequence, Sized
from dataclasses import asdict, dataclass, field
from math import ceil, cos, pi
from pathlib import Path
from typing import Any, Literal

import torch

from instil.batches import Batches
from instil.core import Batch, Net, Objectives, Scheme, closest
from instil.engine import Engine, Optimization, checkpoints
from instil.engine.checkpoint_timer import CheckpointTimer
from instil.step import LossMonitor, train_step

Record = dict[str, Any]


@dataclass(frozen=True)
class Training:
    """How to train: ``epochs`` passes over the loader or ``steps`` optimizer steps; ``warmup`` is a share of the steps.

    Training stops early, at the end of the epoch in which progress reaches ``until``: every schedule is that of the whole length.

    ``optimizer`` trains every learner that ``optimizers`` does not name. Evaluation happens every ``evaluate_every`` epochs, or every
    ``evaluate_steps`` steps, and at the end. Checkpoints are written every ``checkpoint_every`` epochs, every ``checkpoint_steps`` steps, and at the
    end if one of both is set; ``checkpoint_minutes`` adds one whenever the last is older. ``sync_batch_norm``: over several processes,
    BatchNorm layers use the statistics of the global batch. ``allow_coupled_cut`` lets a loss that couples its batch see only
    a micro-batch of it. ``seed`` is the one of keyed draws (``core.uniform``); the global random state is the caller's.
    """

    epochs: int | None = None
    steps: int | None = None
    optimizer: Optimization = field(default_factory=Optimization)
    optimizers: Mapping[str, Optimization] = field(default_factory=dict)
    schedule: Literal["cosine", "constant"] = "cosine"
    warmup: float = 0.0
    until: float = 1.0
    accumulate: int = 1
    allow_coupled_cut: bool = False
    precision: Literal["float32", "bfloat16"] = "float32"
    clip: float | None = None
    shard: bool = False
    compile: bool = False
    device: str = "auto"
    seed: int = 0
    evaluate_every: int = 1
    evaluate_steps: int | None = None
    checkpoint_every: int | None = None
    checkpoint_steps: int | None = None
    checkpoint_minutes: float | None = None
    sync_batch_norm: bool = True

    def __post_init__(self) -> None:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("training needs epochs or steps, one of them")
        if self.schedule not in ("cosine", "constant"):
            raise ValueError(f"schedule is cosine or constant, not '{self.schedule}'")
        for name in (
            "accumulate",
            "evaluate_every",
            "evaluate_steps",
            "checkpoint_every",
            "checkpoint_steps",
        ):
            if (count := getattr(self, name)) is not None and count < 1:
                raise ValueError(f"{name} must be at least 1, not {count}")
        if self.checkpoint_minutes is not None and not self.checkpoint_minutes > 0:
            raise ValueError(
                f"checkpoint_minutes: expected a number above 0 or None, got {self.checkpoint_minutes}"
            )
        if not 0 < self.until <= 1:
            raise ValueError(f"until is a share of the steps above 0 and up to 1, not {self.until}")
        if not 0 <= self.warmup <= 1:
            raise ValueError(f"warmup is a share of the steps between 0 and 1, not {self.warmup}")

    def lr_factor(self, progress: float) -> float:
        """The factor on every learning rate at ``progress``: a linear warm-up, then the schedule."""
        if progress < self.warmup:
            return progress / self.warmup
        after = (progress - self.warmup) / (1 - self.warmup) if self.warmup < 1 else 1.0
        return 0.5 * (1 + cos(pi * after)) if self.schedule == "cosine" else 1.0


@dataclass
class TrainState:
    """Where a run stands; every schedule is a function of ``progress``.

    ``epoch_step``: steps done in this epoch.
    """

    steps: int
    step: int = 0
    epoch: int = 0
    epoch_step: int = 0
    seconds: float = 0.0

    @property
    def progress(self) -> float:
        """The part of the steps that is done, in [0, 1]."""
        return self.step / self.steps


@dataclass
class FitResult:
    """Result of ``fit``: the net to ship, one record an epoch or evaluation, the seconds spent in steps.

    ``others``: further students that were trained beside the net, by name.
    """

    net: Net
    records: list[Record]
    seconds: float
    others: dict[str, Net] = field(default_factory=dict)


def fit(
    scheme: Scheme,
    loader: Iterable[Any],
    training: Training,
    *,
    names: Sequence[str] = ("image", "label"),
    evaluate: Callable[[Net], Mapping[str, float]] | None = None,
    checkpoint: Path | None = None,
    report: Callable[[Record], None] | None = None,
    on_step: Callable[[TrainState], None] | None = None,
) -> FitResult:
    """Train ``scheme`` on ``loader`` (dicts, or tuples named by ``names``) and return the net to ship.

    All nets are left in eval mode.

    ``evaluate`` is given the exported net. Where the file ``checkpoint`` exists, training goes on from it and ends with the weights of an
    uninterrupted run; a damaged one is named in the log, and the one before it is used, or training starts anew. ``report`` gets each record,
    ``on_step`` the clock after each step. Sharded weights are whole again in the net that is returned.

    Raises ValueError for settings that do not fit together, NotFiniteError where a loss is not finite (step, objective, batch indices).
    """
    engine = Engine(
        training.device,
        training.precision,
        training.shard,
        training.clip,
        training.sync_batch_norm,
    )
    batches = Batches(loader, names, training.accumulate, engine)
    clock = TrainState(training.steps or (training.epochs or 0) * batches.steps())
    if clock.steps < 1:
        raise ValueError("nothing to train: the loader gives no batch, or epochs is 0")
    check(scheme, training)
    scheme.to(engine.device).prepare(engine.move(batches.sample()))
    engine.setup(scheme, lambda learner: training.optimizers.get(learner, training.optimizer))
    engine.generators = batches.generators()
    if training.compile:
        for net in [part for part in scheme.modules() if isinstance(part, Net)]:
            net.compile()
    run = _Run(
        scheme, engine, training, clock, LossMonitor(engine), evaluate, report, on_step, checkpoint
    )
    good = None if checkpoint is None else checkpoints.newest_good(checkpoint)
    if good is None:
        batches.collect_statistics(scheme)
    else:
        run.resume(good)
    end = ceil(round(training.until * clock.steps, 6))
    length = batches.steps() if isinstance(loader, Sized) else None
    while clock.step < end:
        run.epoch(batches, length)
        done = clock.step >= end
        run.note(
            done or (not training.evaluate_steps and clock.epoch % training.evaluate_every == 0)
        )
        if run.checkpoint_is_due(done):
            run.save()
    scheme.eval()
    trained = engine.release(scheme).eval()
    others = {name: net.eval() for name, net in trained.other_students().items()}
    return FitResult(trained.export().eval(), run.records, clock.seconds, others)


def check(scheme: Scheme, training: Training) -> None:
    """ValueError for an optimizer of a learner that there is not, and where accumulation would cut the batch of an objective that couples it."""
    if unknown := [name for name in training.optimizers if name not in scheme.learners]:
        raise ValueError(
            f"optimizers.{unknown[0]}: {type(scheme).__name__} has no such learner; {closest(unknown[0], scheme.learners)}"
        )
    coupled = [
        name
        for part in scheme.modules()
        if isinstance(part, Objectives)
        for name, objective in part.named()
        if objective.couples
    ]
    if coupled and training.accumulate > 1 and not training.allow_coupled_cut:
        raise ValueError(
            f"objectives.{coupled[0]}: its items depend on the whole batch, which accumulate={training.accumulate} would cut; "
            "set accumulate to 1, or allow_coupled_cut to train on micro-batches knowingly"
        )


@dataclass
class _Run:
    """One fit under way."""

    scheme: Scheme
    engine: Engine
    training: Training
    clock: TrainState
    watch: LossMonitor
    evaluate: Callable[[Net], Mapping[str, float]] | None
    report: Callable[[Record], None] | None
    on_step: Callable[[TrainState], None] | None
    checkpoint: Path | None
    records: list[Record] = field(default_factory=list)
    epoch_random: dict[str, Any] | None = None  # random state in which this epoch began
    timer: CheckpointTimer = field(init=False)

    def __post_init__(self) -> None:
        self.timer = CheckpointTimer(self.training.checkpoint_minutes)

    def epoch(self, batches: Batches, length: int | None) -> None:
        """Train to the end of the epoch; of one that a checkpoint cut, the rest."""
        clock, training = self.clock, self.training
        self.scheme.train()
        after_skip: Callable[[], None] | None = None
        if clock.epoch_step and self.epoch_random is not None:
            # The loader draws the order of an epoch when the epoch begins; the state of now is
            # that of the step after which the checkpoint was written.
            after_skip = functools.partial(self.engine.set_random_state, self.engine.random_state())
            self.engine.set_random_state(self.epoch_random)
        else:
            self.epoch_random = self.engine.random_state()
        for micro_batches in batches.epoch(clock.epoch, clock.epoch_step, after_skip):
            ends = {} if length is None else {"epoch_ends": clock.epoch_step + 1 == length}
            self.step(micro_batches, ends)
            if self.on_step is not None:
                self.on_step(clock)
            if clock.step == clock.steps:
                break
            if training.evaluate_steps and clock.step % training.evaluate_steps == 0:
                self.note(True)
            if self.checkpoint_is_due_within_epoch():
                self.save()
        if clock.epoch_step == 0:
            raise ValueError(
                f"the loader gave no batch in epoch {clock.epoch}, after {clock.step} of "
                f"{clock.steps} steps; it must be possible to read it anew each epoch"
            )
        clock.epoch += 1
        clock.epoch_step = 0

    def checkpoint_is_due_within_epoch(self) -> bool:
        """Whether a checkpoint is due after this step. Every rank must ask after every step."""
        steps = self.training.checkpoint_steps
        is_over = self.timer.is_due()
        return is_over or bool(steps and self.clock.step % steps == 0)

    def checkpoint_is_due(self, done: bool) -> bool:
        """Whether the end of an epoch is one of the moments of a checkpoint."""
        every = self.training.checkpoint_every
        if done:
            return bool(every or self.training.checkpoint_steps)
        return bool(every) and self.clock.epoch % (every or 1) == 0

    def save(self) -> None:
        """Write a checkpoint, if there is a file for it."""
        self.timer.restart()
        if self.checkpoint is None:
            return
        self.engine.sync_buffers(self.scheme)
        extra = {"clock": asdict(self.clock), "records": self.records}
        own = {"epoch_random": self.epoch_random, "watch": self.watch.state()}
        self.engine.save(self.scheme, self.checkpoint, extra, own)

    def step(self, micro_batches: list[Batch], moment: Mapping[str, bool]) -> None:
        began = time.perf_counter()
        self.engine.set_lr_factor(self.training.lr_factor(self.clock.progress))
        clock = {
            "step": self.clock.step,
            "progress": self.clock.progress,
            "seed": self.training.seed,
            **moment,
        }
        batches = [
            self.engine.move(batch) | {key: torch.tensor(value) for key, value in clock.items()}
            for batch in micro_batches
        ]
        self.watch.see(train_step(self.engine, self.scheme, batches), self.clock.step, batches)
        self.clock.step += 1
        self.clock.epoch_step += 1
        self.clock.seconds += time.perf_counter() - began

    def note(self, evaluates: bool) -> None:
        self.engine.sync_buffers(self.scheme)
        losses = self.watch.means()
        rate = self.training.lr_factor(self.clock.progress) * self.training.optimizer.options.get(
            "lr", 0.0
        )
        record: Record = {
            "epoch": self.clock.epoch,
            "step": self.clock.step,
            "losses": losses,
            "lr": rate,
            "seconds": round(self.clock.seconds, 3),
        }
        if evaluates and self.evaluate is not None:
            record["validation"] = dict(self.evaluate(self.scheme.export()))
            self.scheme.train()
        self.add(record)

    def add(self, record: Record) -> None:
        self.records.append(record)
        if self.report is not None:
            self.report(record)

    def resume(self, checkpoint: Path) -> None:
        """Go on from a checkpoint; ValueError if it is damaged or of another training."""
        state = self.engine.load(self.scheme, checkpoint)
        try:
            clock = TrainState(**state["clock"])
            records = [dict(record) for record in state["records"]]
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"checkpoint {checkpoint}: 'clock' or 'records' are not those of this version "
                f"({error}). {checkpoints.REMEDY}."
            ) from error
        if clock.steps != self.clock.steps:
            raise ValueError(
                f"checkpoint {checkpoint} is of a run of {clock.steps} steps, this one has "
                f"{self.clock.steps}"
            )
        vars(self.clock).update(vars(clock))
        self.epoch_random = state.get("epoch_random")
        if "watch" in state:
            self.watch.restore(state["watch"])
        for record in records:
            self.add(record)
