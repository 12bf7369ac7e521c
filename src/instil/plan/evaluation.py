"""Evaluation of the networks of a run."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from instil.capabilities import Perturbation
from instil.core import Net, Teacher
from instil.data.samples import Samples
from instil.data.splits import Splits
from instil.engine import init_distributed, rank, world_size
from instil.experiment.cached_teacher import CachedTeacher
from instil.experiment.experiment import Experiment
from instil.experiment.recipe_metrics import perturbations
from instil.export.student import save_student
from instil.items import to_device
from instil.plan import finished_students
from instil.plan.run_folder import RunFolder
from instil.tasks.bases.continuations import first_texts
from instil.tasks.language import Language


class Evaluator:
    """Measures networks on the validation and test data of a recipe.

    Args:
        experiment: data and task of the recipe.

    Attributes:
        teacher_outputs: outputs of the teacher by split, for metrics that compare student and
            teacher; empty where the teacher cannot be scored.
    """

    def __init__(self, experiment: Experiment) -> None:
        self.experiment = experiment
        self.task = experiment.task
        self.teacher_outputs: dict[str, CachedTeacher] = {}

    def evaluate(
        self, net: nn.Module, split: str, experiment: Experiment | None = None
    ) -> tuple[dict[str, float], dict[str, Any]]:
        """Return metrics and details of a network.

        Args:
            net: network to evaluate.
            split: ``validation`` or ``test``.
            experiment: experiment of a teacher with data of its own, to which the recorded
                teacher outputs do not belong.
        """
        splits = (experiment or self.experiment).splits
        samples = splits.test if split == "test" else splits.validation
        metrics, details = self._measure(net, split, splits)
        return self._with_headline(metrics, net, samples), details

    def _measure(
        self, net: nn.Module, split: str, splits: Splits
    ) -> tuple[dict[str, float], dict[str, Any]]:
        """Return metrics and details that need no generated outputs."""
        samples = splits.test if split == "test" else splits.validation
        is_own = splits is self.experiment.splits
        teacher_outputs = self.teacher_outputs.get(split) if is_own else None
        loader = self.experiment.loader(samples, shuffle=False)
        metrics, details = self.task.measure(net, loader, teacher_outputs)
        return metrics, details

    def headline(self, net: nn.Module, samples: Samples) -> float:
        """Return the headline metric of a network on some samples."""
        loader = self.experiment.loader(samples, shuffle=False)
        metrics = self._with_headline(self.task.measure(net, loader)[0], net, samples)
        return float(metrics[self.task.headline])

    def _with_headline(
        self, metrics: dict[str, float], net: nn.Module, samples: Samples
    ) -> dict[str, float]:
        """Return metrics with the headline, which attacks or generated answers may define."""
        headline = self.task.headline
        if headline in metrics:
            return metrics
        if headline in self.perturbations:
            return metrics | {headline: self._perturbed_score(headline, net, samples)}
        answers: dict[str, float] = self.task.evaluate_answers(net, samples)
        return metrics | answers

    def evaluate_completely(
        self, net: nn.Module, teacher: Teacher | None = None
    ) -> tuple[dict[str, float], dict[str, Any]]:
        """Return test metrics of a network, those of attacks and of its own text included."""
        metrics, details = self._measure(net, "test", self.experiment.splits)
        metrics |= self._evaluate_robustness(net)
        generation_metrics, texts = self.task.evaluate_generation(
            net, self.experiment.splits.test, teacher
        )
        details |= texts
        return metrics | generation_metrics, details

    def examples_of(self, net: nn.Module) -> list[str]:
        """Return the first tokens of texts that a network generates for some test prompts.

        Empty for other tasks than language modelling, and on several processes, which may not hold
        a whole network each.
        """
        samples = self.experiment.splits.test
        is_text = isinstance(self.task, Language) and hasattr(samples, "text_of")
        if not is_text or world_size() > 1:
            return []
        return first_texts(net.to(init_distributed()), samples)

    @functools.cached_property
    def perturbations(self) -> dict[str, Perturbation]:
        """Test conditions of the last stage's scheme, by the names of their metrics."""
        return perturbations(self.experiment.recipe)

    def can_perturb(self, net: nn.Module) -> bool:
        """Return whether a network has gradients with respect to its input, as attacks need."""
        if not isinstance(net, Teacher):
            return True
        teachers = itertools.chain(*(stage.recipe.teachers for stage in self.experiment.stages))
        return all(one.is_differentiable for one in teachers)

    def _evaluate_robustness(self, net: nn.Module) -> dict[str, float]:
        """Return the metric of the task on test samples under each test condition."""
        if not self.can_perturb(net):
            return {}
        samples = self.experiment.splits.test
        return {name: self._perturbed_score(name, net, samples) for name in self.perturbations}

    def _perturbed_score(self, name: str, net: nn.Module, samples: Samples) -> float:
        """Return the metric of the task under a test condition."""
        perturb = self.perturbations[name]
        batches = (
            perturb(net, to_device(self.task.as_dict(batch), init_distributed()))
            for batch in self.experiment.loader(samples, shuffle=False)
        )
        metric = self.task.headline
        if metric in self.perturbations and self.task.own_headline is not None:
            metric = self.task.own_headline
        return float(self.task.measure(net, batches)[0][metric])

    def evaluate_others(
        self, nets: Mapping[str, Net], folder: RunFolder, seed: int
    ) -> dict[str, float]:
        """Return the headline metric of each further student, and write its weights."""
        metrics = {}
        for learner, net in nets.items():
            headline = self.task.headline
            metrics[f"{learner}_{headline}"] = self.evaluate(net, "test")[0][headline]
            if rank() == 0:
                save_student(net, finished_students.other_path(folder, learner, seed))
        return metrics

    def cache_outputs(
        self, teacher: Teacher, samples: Samples, roles: Sequence[str] = ()
    ) -> CachedTeacher:
        """Compute the outputs of a teacher for samples once.

        Args:
            teacher: the teacher, on its device.
            samples: samples, each with its index.
            roles: roles in addition to those that the task compares.
        """
        compared = self.task.teacher_eval_roles or self.task.roles
        loader = self.experiment.loader(samples, shuffle=False)
        return CachedTeacher(teacher, tuple(dict.fromkeys([*roles, *compared])), loader)

    def cache_decisions(self, teacher: Teacher, samples: Samples) -> CachedTeacher:
        """Compute what pseudo-labels read of the outputs of a teacher, once.

        Args:
            teacher: the teacher, on its device.
            samples: training samples, each with its index.
        """
        task = self.task
        roles = task.decision_roles or task.teacher_eval_roles or task.roles
        loader = self.experiment.loader(samples, shuffle=False)
        return CachedTeacher(teacher, roles, loader, task.decisions)
