"""The one loop: ``fit`` trains any scheme on any loader."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import asdict, dataclass, field
from math import ceil, cos, pi
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from instil.core import Batch, Net, Objectives, Scheme, closest, dry, size
from instil.engine import Engine, Optimization, gather_rows, world
from instil.step import Watch, train_step

Record = dict[str, Any]


@dataclass(frozen=True)
class Training:
    """How to train: ``epochs`` passes over the loader or ``steps`` optimizer steps; ``warmup`` is a share of the steps.

    Training stops early, at the end of the epoch in which progress reaches ``until``: every schedule is that of the whole length.

    ``optimizer`` trains every learner that ``optimizers`` does not name. Evaluation happens every ``evaluate_every`` epochs, or every
    ``evaluate_steps`` steps, and at the end; ``checkpoint_every`` counts epochs. ``allow_coupled_cut`` lets a loss that couples its batch see only
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

    def __post_init__(self) -> None:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("training needs epochs or steps, one of them")
        if self.schedule not in ("cosine", "constant"):
            raise ValueError(f"schedule is cosine or constant, not '{self.schedule}'")
        for name in ("accumulate", "evaluate_every", "evaluate_steps", "checkpoint_every"):
            if (number := getattr(self, name)) is not None and number < 1:
                raise ValueError(f"{name} must be at least 1, not {number}")
        if not 0 < self.until <= 1:
            raise ValueError(f"until is a share of the steps above 0 and up to 1, not {self.until}")
        if not 0 <= self.warmup <= 1:
            raise ValueError(f"warmup is a share of the steps between 0 and 1, not {self.warmup}")

    def rate(self, progress: float) -> float:
        """The factor on every learning rate at ``progress``: a linear warm-up, then the schedule."""
        if progress < self.warmup:
            return progress / self.warmup
        after = (progress - self.warmup) / (1 - self.warmup) if self.warmup < 1 else 1.0
        return 0.5 * (1 + cos(pi * after)) if self.schedule == "cosine" else 1.0


@dataclass
class Clock:
    """Where a run stands; every schedule is a function of ``progress``."""

    steps: int
    step: int = 0
    epoch: int = 0
    seconds: float = 0.0

    @property
    def progress(self) -> float:
        """The part of the steps that is done, in [0, 1]."""
        return self.step / self.steps


@dataclass
class Fit:
    """What ``fit`` gives back: the net to ship, one record an epoch or evaluation, the seconds spent in steps."""

    net: Net
    records: list[Record]
    seconds: float


def fit(
    scheme: Scheme,
    loader: Iterable[Any],
    training: Training,
    *,
    names: Sequence[str] = ("image", "label"),
    evaluate: Callable[[Net], Mapping[str, float]] | None = None,
    checkpoint: Path | None = None,
    report: Callable[[Record], None] | None = None,
    tick: Callable[[Clock], None] | None = None,
) -> Fit:
    """Train ``scheme`` on ``loader`` (dicts, or tuples named by ``names``) and return the net to ship.

    All nets are left in eval mode.

    ``evaluate`` is given the exported net. Where the file ``checkpoint`` exists, training goes on from it and ends with the weights of an
    uninterrupted run. ``report`` gets each record, ``tick`` the clock after each step.

    Raises ValueError for settings that do not fit together, RuntimeError where a loss is not finite (step, objective, batch indices).
    """
    engine = Engine(training.device, training.precision, training.shard, training.clip)
    batches = _Batches(loader, names, training.accumulate, engine)
    clock = Clock(training.steps or (training.epochs or 0) * batches.steps())
    if clock.steps < 1:
        raise ValueError("nothing to train: the loader gives no batch, or epochs is 0")
    check(scheme, training)
    scheme.to(engine.device).prepare(engine.move(batches.sample()))
    engine.setup(scheme, lambda learner: training.optimizers.get(learner, training.optimizer))
    engine.generators = batches.generators()
    if training.compile:
        for net in [part for part in scheme.modules() if isinstance(part, Net)]:
            net.compile()
    run = _Run(scheme, engine, training, clock, Watch(engine), evaluate, report)
    if checkpoint is not None and checkpoint.exists():
        run.resume(checkpoint)
    else:
        batches.study(scheme)
    end = ceil(round(training.until * clock.steps, 6))
    length = batches.steps() if isinstance(loader, Sized) else None
    while clock.step < end:
        scheme.train()
        before = clock.step
        for micro_batches in batches.epoch(clock.epoch):
            run.step(
                micro_batches,
                {} if length is None else {"epoch_ends": clock.step + 1 - before == length},
            )
            if tick is not None:
                tick(clock)
            if clock.step == clock.steps:
                break
            if training.evaluate_steps and clock.step % training.evaluate_steps == 0:
                run.note(True)
        if clock.step == before:
            where = f"in epoch {clock.epoch}, after {clock.step} of {clock.steps} steps"
            raise ValueError(
                f"the loader gave no batch {where}; it must be possible to read it anew each epoch"
            )
        clock.epoch += 1
        done = clock.step >= end
        run.note(
            done or (not training.evaluate_steps and clock.epoch % training.evaluate_every == 0)
        )
        if (
            checkpoint is not None
            and training.checkpoint_every
            and (done or clock.epoch % training.checkpoint_every == 0)
        ):
            engine.save(scheme, checkpoint, {"clock": asdict(clock), "records": run.records})
    engine.clear()
    scheme.eval()
    return Fit(scheme.export().eval(), run.records, clock.seconds)


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
    clock: Clock
    watch: Watch
    evaluate: Callable[[Net], Mapping[str, float]] | None
    report: Callable[[Record], None] | None
    records: list[Record] = field(default_factory=list)

    def step(self, micro_batches: list[Batch], moment: Mapping[str, bool]) -> None:
        began = time.perf_counter()
        self.engine.rate(self.training.rate(self.clock.progress))
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
        self.clock.seconds += time.perf_counter() - began

    def note(self, evaluates: bool) -> None:
        self.engine.agree()
        losses = self.watch.means()
        rate = self.training.rate(self.clock.progress) * self.training.optimizer.options.get(
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
        state = self.engine.load(self.scheme, checkpoint)
        if state["clock"]["steps"] != self.clock.steps:
            raise ValueError(
                f"checkpoint {checkpoint} is of a run of {state['clock']['steps']} steps, this one has {self.clock.steps}"
            )
        vars(self.clock).update(state["clock"])
        for record in state["records"]:
            self.add(record)


@dataclass
class _Batches:
    """A loader as steps: lists of ``accumulate`` named batches, as many on every rank."""

    loader: Iterable[Any]
    names: Sequence[str]
    accumulate: int
    engine: Engine

    def steps(self) -> int:
        """Optimizer steps a pass."""
        if not isinstance(self.loader, Sized):
            raise ValueError("a loader without a length needs steps instead of epochs")
        return ceil(self.engine.most(len(self.loader)) / self.accumulate)

    def sample(self) -> Batch:
        """A batch to try things on; the random state stays as it was."""
        states = [generator.get_state() for generator in self.generators()]
        with dry(torch.nn.Module()):
            item = next(iter(self.loader), None)
        for generator, state in zip(self.generators(), states, strict=True):
            generator.set_state(state)
        if item is None:
            raise ValueError("the loader gives no batch")
        return self.named(item)

    def study(self, scheme: Scheme) -> None:
        """Show objectives that ask for it what the teacher says of many samples, in the order of an epoch and without their labels.

        Nothing moves but what those objectives keep; the random state stays as it was.
        """
        parts = [part for part in scheme.modules() if isinstance(part, Objectives)]
        wanted = max(
            (objective.studies for part in parts for _, objective in part.named()), default=0
        )
        if not wanted:
            return
        states = [generator.get_state() for generator in self.generators()]
        rows: dict[str, list[Tensor]] = {}
        seen = 0
        with dry(scheme):
            for micro_batches in self.epoch(0):
                for batch in map(self.engine.move, micro_batches):
                    known = {key: value for key, value in batch.items() if key != "label"}
                    with self.engine.autocast():
                        teacher = scheme.ask(known)
                    for key, value in scheme.objectives.study(teacher, known).items():
                        rows.setdefault(key, []).append(value)
                    seen += size(batch)
                if self.engine.most(seen) * world() >= wanted:
                    break
        for part in parts:
            part.studied({key: gather_rows(torch.cat(values)) for key, values in rows.items()})
        for generator, state in zip(self.generators(), states, strict=True):
            generator.set_state(state)

    def generators(self) -> list[torch.Generator]:
        """The loader's own source of randomness, where it has one."""
        generator = getattr(self.loader, "generator", None)
        return [generator] if isinstance(generator, torch.Generator) else []

    def epoch(self, epoch: int) -> Iterator[list[Batch]]:
        if hasattr(self.loader, "set_epoch"):
            self.loader.set_epoch(epoch)
        items = iter(self.loader)
        spare: Batch | None = None
        while True:
            mine = [
                self.named(item) for _, item in zip(range(self.accumulate), items, strict=False)
            ]
            wanted = self.engine.most(len(mine))
            if not wanted:
                return
            spare = mine[-1] if mine else spare
            if spare is None:
                raise ValueError("this rank has no batch at all; give every rank data")
            yield mine + [self.uncounted(spare)] * (wanted - len(mine))

    def named(self, item: Any) -> Batch:
        """A batch as a dict; tuples are named in order."""
        if isinstance(item, Mapping):
            return dict(item)
        values = item if isinstance(item, (tuple, list)) else (item,)
        if len(values) > len(self.names):
            raise ValueError(
                f"loader: a batch has {len(values)} values. Expected a dict, or a tuple of "
                f"{len(self.names)} ({', '.join(self.names)}). Name all values with names="
            )
        return dict(zip(self.names, values, strict=False))

    @staticmethod
    def uncounted(batch: Batch) -> Batch:
        """The same batch with nothing in it that counts: what a rank adds that has run out of data."""
        valid = batch["valid"] if "valid" in batch else torch.zeros(size(batch), dtype=torch.bool)
        return batch | {"valid": torch.zeros_like(valid)}
