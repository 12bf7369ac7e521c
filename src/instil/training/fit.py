"""The training loop for any scheme and any loader."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence, Sized
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from instil.capabilities import TrainsOtherStudents
from instil.cards import suggestion
from instil.core import Net, Objectives, Scheme
from instil.engine import Engine
from instil.engine.checkpoint_paths import newest_intact, require_no_other_files
from instil.training.batches import Batches
from instil.training.monitor import LossMonitor
from instil.training.run import Record, Run
from instil.training.settings import Training
from instil.training.train_state import TrainState

__all__ = ["FitResult", "Record", "TrainState", "Training", "check", "fit"]


@dataclass
class FitResult:
    """Result of ``fit``.

    Attributes:
        net: exported net.
        records: one record per epoch or evaluation.
        seconds: time spent in steps.
        others: further students of the scheme, by name.
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
    checkpoint: Path | str | None = None,
    report: Callable[[Record], None] | None = None,
    on_step: Callable[[TrainState], None] | None = None,
) -> FitResult:
    """Train a scheme and return the net to deploy; all nets are left in eval mode.

    Args:
        scheme: the scheme; its nets are trained in place.
        loader: yields dicts, or tuples in the order of ``names``.
        training: length, optimization and further settings.
        names: names of the values of a tuple.
        evaluate: returns metrics of the exported net.
        checkpoint: file, written as often as ``training`` sets. Training continues from it if it
            exists, and ends with the weights of an uninterrupted training. A damaged file is
            reported in the log, and the checkpoint before it is used, if there is one.
        report: called with each record.
        on_step: called with the state after each step.

    Returns:
        The exported net with complete weights, the records and the training time.

    Raises:
        ValueError: if settings contradict each other, the loader yields no batch, or the checkpoint
            would replace files of the user.
        NotFiniteError: if a loss is not finite; it has the step, the objective and batch indices.

    Example:
        >>> import torch
        >>> from instil import KD, Training
        >>> from instil.schemes.offline.offline import Offline
        >>> from instil.teachers.frozen import Frozen
        >>> student = torch.nn.Linear(4, 3)
        >>> scheme = Offline(student, Frozen(Net(torch.nn.Linear(4, 3))), {"kd": KD()})
        >>> result = fit(scheme, [(torch.randn(8, 4),)], Training(epochs=2, device="cpu"))
        >>> result.records[-1]["step"]
        2
    """
    _check_arguments(scheme, training)
    path = _checkpoint_path(checkpoint)
    engine = Engine(
        training.device,
        training.precision,
        training.shard,
        training.clip,
        training.sync_batch_norm,
        training.activation_checkpointing,
        training.shard_group,
    )
    batches = Batches(loader, names, training.accumulate, engine)
    state = TrainState(training.steps or (training.epochs or 0) * batches.steps())
    if state.steps < 1:
        raise ValueError("nothing to train: the loader gives no batch, or epochs is 0")
    # A schedule that is shorter than the training is found before the first step.
    training.learning_rate(1.0, 1.0, state.steps)
    _prepare(scheme, batches, training)
    monitor = LossMonitor(engine)
    run = Run(scheme, engine, training, state, monitor, evaluate, report, on_step, path)
    good = None if path is None else newest_intact(path)
    if good is None:
        batches.collect_statistics(scheme)
    else:
        run.resume(good)
    with engine.writer.completed_after_error():
        run.epochs(batches, batches.steps() if isinstance(loader, Sized) else None)
    run.finish()
    scheme.eval()
    trained = engine.release(scheme).eval()
    students = trained.other_students() if isinstance(trained, TrainsOtherStudents) else {}
    others = {name: net.eval() for name, net in students.items()}
    return FitResult(trained.export().eval(), run.records, state.seconds, others)


def _checkpoint_path(checkpoint: Path | str | None) -> Path | None:
    """Return the path of a checkpoint that would not replace files of the user."""
    if checkpoint is None:
        return None
    require_no_other_files(Path(checkpoint))
    return Path(checkpoint)


def _check_arguments(scheme: Any, training: Any) -> None:
    for name, value, expected in (("scheme", scheme, Scheme), ("training", training, Training)):
        if not isinstance(value, expected):
            advice = "Offline(...)" if expected is Scheme else "Training(epochs=20)"
            raise ValueError(
                f"{name}: Expected a {expected.__name__}, such as {advice}, got "
                f"{type(value).__name__}"
            )


def _prepare(scheme: Scheme, batches: Batches, training: Training) -> None:
    """Build adapters on a dry batch, then make the optimizers and compile the nets."""
    engine = batches.engine
    check(scheme, training)
    engine.prepare(scheme, batches.sample())
    engine.setup(scheme, training.optimization_of)
    engine.generators = batches.generators()
    if training.compile:
        for net in [part for part in scheme.modules() if isinstance(part, Net)]:
            net.compile()


def check(scheme: Scheme, training: Training) -> None:
    """Check that settings and scheme fit together.

    Args:
        scheme: the scheme.
        training: settings of its training.

    Raises:
        ValueError: if an optimizer names an unknown learner, or accumulation would cut the batch of
            an objective that couples it.
    """
    if unknown := [name for name in training.optimizers if name not in scheme.learners]:
        raise ValueError(
            f"optimizers.{unknown[0]}: {type(scheme).__name__} has no such learner."
            f"{suggestion(unknown[0], scheme.learners)}"
        )
    if training.accumulate == 1 or training.allow_coupled_cut:
        return
    for part in scheme.modules():
        for name, objective in part.named() if isinstance(part, Objectives) else ():
            if objective.couples:
                raise ValueError(
                    f"objectives.{name}: its items depend on the whole batch, which "
                    f"accumulate={training.accumulate} would cut; set accumulate to 1, or "
                    "allow_coupled_cut to train on micro-batches knowingly"
                )
