"""Training of one network in a run folder: logged, checkpointed and resumed."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from instil.core import Scheme
from instil.data.loader import Loader, Repeated
from instil.data.samples import Samples
from instil.data.stream_loader import StreamLoader
from instil.experiment.experiment import Experiment
from instil.experiment.fitted_student import fit_student, is_fitted_student
from instil.experiment.label_counts import set_label_counts
from instil.plan import finished_students
from instil.plan.divergence import divergence_message
from instil.plan.evaluation import Evaluator
from instil.plan.run_folder import RunFolder
from instil.training.fit import FitResult, Training, TrainState, fit
from instil.training.monitor import NotFiniteError

OnStep = Callable[[str, "int | None", TrainState], None]
"""Callback with the name and seed of a training (None for a teacher) and its state."""


class Fitter:
    """Trains networks and writes their records and checkpoints into a run folder.

    Args:
        folder: run folder.
        evaluator: evaluates a network during its training.
        on_step: called after every step.

    Attributes:
        records: records of the training job that is running, which are kept with its result.
    """

    def __init__(self, folder: RunFolder, evaluator: Evaluator, on_step: OnStep) -> None:
        self.folder = folder
        self.evaluator = evaluator
        self.on_step = on_step
        self.records: list[dict[str, Any]] = []

    def fit(
        self,
        name: str,
        seed: int | None,
        scheme: Scheme,
        samples: Samples,
        training: Training,
        experiment: Experiment,
        stage_index: int = 0,
    ) -> FitResult:
        """Train one network; continue from its checkpoint if there is one.

        Args:
            name: name of the training, such as ``teacher`` or ``distilled``.
            seed: seed of the student, None for a teacher.
            scheme: training scheme around the network.
            samples: training samples.
            training: training options.
            experiment: experiment of the stage, or of a teacher with data of its own.
            stage_index: index of the training stage.

        Raises:
            RuntimeError: if a loss becomes NaN or infinite.
        """
        set_label_counts(scheme, samples)
        if is_fitted_student(scheme):
            return self._fit_estimator(name, seed, scheme, samples, experiment, stage_index)
        options: dict[str, Any] = {}
        if name == "distilled":
            # Samplers and mixed images are part of the method; baselines have plain batches.
            options = {"sampler": experiment.recipe.data.sampler, "with_mixing": True}
        loader = experiment.loader(
            samples, training.seed, accumulate=training.accumulate, **options
        )
        try:
            return fit(
                scheme,
                self._repeated(loader, samples, training, experiment, seed, options),
                self._with_metric(training),
                evaluate=lambda net: self.evaluator.evaluate(net, "validation", experiment)[0],
                checkpoint=finished_students.checkpoint(self.folder, name, seed, stage_index),
                report=lambda record: self.log(
                    {"seed": seed, "arm": name, "stage": stage_index, **record}
                ),
                on_step=lambda state: self.on_step(name, seed, state),
            )
        except NotFiniteError as error:
            message = divergence_message(error, name, seed, experiment.recipe, training)
            raise RuntimeError(message) from error

    def _fit_estimator(
        self,
        name: str,
        seed: int | None,
        scheme: Scheme,
        samples: Samples,
        experiment: Experiment,
        stage_index: int,
    ) -> FitResult:
        """Fit a student that has no gradients; a fit is one step and has no checkpoint."""
        start = time.perf_counter()
        loader = experiment.loader(samples, shuffle=False)
        fitted = fit_student(scheme, loader, len(experiment.splits.classes))
        seconds = time.perf_counter() - start
        net = scheme.export().eval()
        validation, _ = self.evaluator.evaluate(net, "validation", experiment)
        record = {
            "epoch": 1,
            "step": 1,
            "losses": fitted.losses,
            "rows": fitted.num_rows,
            "seconds": round(seconds, 3),
            "validation": validation,
        }
        self.log({"seed": seed, "arm": name, "stage": stage_index, **record})
        self.on_step(name, seed, TrainState(1, step=1, epoch=1, seconds=seconds))
        return FitResult(net, [record], seconds)

    def _with_metric(self, training: Training) -> Training:
        """Training that compares its evaluations by the headline metric of the task."""
        task = self.evaluator.task
        return replace(training, metric=task.headline, higher_is_better=task.higher_is_better)

    @staticmethod
    def _repeated(
        loader: Loader | StreamLoader,
        samples: Samples,
        training: Training,
        experiment: Experiment,
        seed: int | None,
        options: dict[str, Any],
    ) -> Any:
        """Repeat few samples, so that an epoch has the steps of one through all of them."""
        if isinstance(loader, StreamLoader):
            return loader
        all_samples = experiment.splits.train if seed is None else experiment.samples
        if len(samples) >= len(all_samples):
            return loader
        steps = experiment.loader(
            all_samples,
            accumulate=training.accumulate,
            sampler=options.get("sampler", "shuffled"),
        ).steps
        return Repeated(loader, steps)

    def log(self, record: dict[str, Any]) -> None:
        """Append a record to ``metrics.jsonl`` and to the records of the job."""
        self.records.append(record)
        self.folder.log(record)

    def log_again(self, name: str, seed: int | None, records: list[dict[str, Any]]) -> None:
        """Move the records of a finished training to the end of ``metrics.jsonl``."""
        self.folder.remove_records(name, seed)
        for record in records:
            self.folder.log(record)
