"""Scores of the teacher of a run."""

from __future__ import annotations

from typing import Any

import torch

from instil import catalogue
from instil.capabilities import AccountsPrivacy
from instil.cards import has_tag
from instil.core import Teacher
from instil.data.samples import Samples
from instil.engine import init_distributed
from instil.experiment import stored_teacher
from instil.experiment.experiment import Experiment
from instil.experiment.teachers import combine_teachers, prepare_teacher, teacher_class_names
from instil.experiment.training_options import autocast_context
from instil.items import to_device
from instil.networks.predictions_model import PredictionsModel
from instil.plan.evaluation import Evaluator
from instil.plan.teacher_training import TeacherTrainer
from instil.plan.trained_model import TrainedModel
from instil.recipe.sections import TeacherConfig


class TeacherScores:
    """Builds the teacher of the last stage that has one, and scores it.

    Args:
        evaluator: gets the teacher's outputs for all splits.
        stages: experiment of each training stage.
        teachers: builds the teachers.

    Attributes:
        teacher: the teacher; None before ``measure`` and without a teacher.
    """

    def __init__(
        self, evaluator: Evaluator, stages: list[Experiment], teachers: TeacherTrainer
    ) -> None:
        self.evaluator = evaluator
        self.experiment = evaluator.experiment
        self.stages = stages
        self.teachers = teachers
        self.teacher: Teacher | None = None

    def measure(self) -> TrainedModel | None:
        """Build and score the teacher; None where no stage has a teacher of its own.

        A teacher whose classes or tokens differ from the data's has no scores.
        """
        if self.experiment.recipe.store is not None:
            return self._recorded()
        index, members = self._members()
        stage = self.stages[index]
        networks = [self.teachers.network(stage, spec, order) for order, spec in members]
        teacher = prepare_teacher(combine_teachers(stage, [net for net, _ in networks]), stage)
        if teacher is None:
            return None
        self.teacher = teacher
        seconds = sum(seconds for _, seconds in networks)
        has_own_tokens = any(spec.tokenizer for _, spec in members)
        if has_own_tokens or not self._can_be_scored(teacher, stage):
            privacy_cost = teacher.privacy_cost() if isinstance(teacher, AccountsPrivacy) else {}
            return TrainedModel(teacher, {}, {}, {}, seconds, privacy_cost=privacy_cost)
        with autocast_context(stage.recipe.train):
            self._cache_outputs(teacher)
            validation = self._evaluate(teacher, self.experiment.splits.validation)[0]
            test, details = self._evaluate(teacher, self.experiment.splits.test)
            test |= self.evaluator.evaluate_robustness(teacher)
            metrics, texts = self.evaluator.task.evaluate_generation(
                teacher, self.experiment.splits.test, None
            )
            details |= texts
        return TrainedModel(teacher, test | dict(metrics), validation, details, seconds)

    def _members(self) -> tuple[int, list[tuple[int, TeacherConfig]]]:
        """Return the last stage whose teacher is not the student of an earlier stage."""
        index, members = 0, list[tuple[int, TeacherConfig]]()
        for stage_index, stage in enumerate(self.stages):
            own = [
                (order, spec)
                for order, spec in enumerate(stage.recipe.teachers)
                if not spec.earlier
            ]
            if own:
                index, members = stage_index, own
        return index, members

    def _evaluate(
        self, teacher: Teacher, samples: Samples
    ) -> tuple[dict[str, float], dict[str, Any]]:
        """Evaluate the teacher itself, without a comparison with its own outputs."""
        loader = self.experiment.loader(samples, shuffle=False)
        metrics, details = self.evaluator.task.measure(teacher, loader)
        return metrics, details

    def _cache_outputs(self, teacher: Teacher) -> None:
        """Cache the teacher's outputs for the splits that students are compared on."""
        splits = self.experiment.splits
        parts = {"validation": splits.validation, "test": splits.test}
        if self._labels_training_samples():
            parts = {"train": splits.train, **parts}
        for name, samples in parts.items():
            outputs = self.evaluator.cache_outputs(teacher, samples)
            self.evaluator.teacher_outputs[name] = outputs

    def _labels_training_samples(self) -> bool:
        """Whether a baseline reads the teacher's outputs for training samples."""
        baselines = (catalogue.find("baseline", name) for name in self.experiment.recipe.baselines)
        return any(kind.needs_teacher and not kind.is_data_free for kind in baselines)

    def _recorded(self) -> TrainedModel:
        """Read scores and cost of a recorded teacher from its store."""
        facts = stored_teacher.open_store(self.experiment).manifest.teacher.model_dump()
        splits = self.experiment.splits
        sections = {}
        if self._labels_training_samples():
            sections["train"] = "plain", splits.train
        if facts["test"]:
            sections["validation"] = "validation", splits.validation
            sections["test"] = "test", splits.test
        for name, (section, samples) in sections.items():
            teacher = stored_teacher.stored_teacher(self.experiment, section)
            self.evaluator.teacher_outputs[name] = self.evaluator.cache_outputs(teacher, samples)
        return TrainedModel(stored_teacher.stored_teacher(self.experiment), **facts)

    def _has_predictions(self, teacher: Teacher) -> bool:
        """Whether a teacher from a file has predictions for validation and test."""
        splits = self.experiment.splits
        evaluated = torch.cat([splits.validation.index, splits.test.index])
        models = [model for model in teacher.modules() if isinstance(model, PredictionsModel)]
        return all(model.covers(evaluated) for model in models)

    def _can_be_scored(self, teacher: Teacher, stage: Experiment) -> bool:
        if has_tag(teacher, "disjoint_data"):
            # Each further answer would spend more of the privacy budget.
            return False
        class_spaces = [
            tuple(teacher_class_names(stage, index)) for index in range(len(stage.recipe.teachers))
        ]
        own_classes = tuple(self.experiment.splits.classes)
        if not has_tag(teacher, "merged_classes") and any(
            classes != own_classes for classes in class_spaces
        ):
            return False
        if not self._has_predictions(teacher):
            return False
        loader = self.experiment.loader(self.experiment.splits.validation, shuffle=False)
        outputs = teacher(to_device(next(iter(loader)), init_distributed()))
        return bool(self.evaluator.task.can_score(outputs, self.experiment.splits.classes))
