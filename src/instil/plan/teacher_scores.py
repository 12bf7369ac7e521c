"""Scores of the teacher of a run."""

from __future__ import annotations

from typing import Any

import torch

from instil import catalogue
from instil.capabilities import AccountsPrivacy
from instil.cards import has_tag
from instil.core import Batch, Teacher
from instil.data.samples import Samples
from instil.engine import init_distributed
from instil.experiment import stored_teacher
from instil.experiment.cached_teacher import CachedTeacher
from instil.experiment.experiment import Experiment
from instil.experiment.offloaded_teachers import move_teacher
from instil.experiment.teachers import combine_teachers, prepare_teacher, teacher_class_names
from instil.experiment.training_options import autocast_context
from instil.items import to_device
from instil.networks.predictions_model import PredictionsModel
from instil.plan import teacher_record
from instil.plan.evaluation import Evaluator
from instil.plan.run_folder import RunFolder
from instil.plan.teacher_record import TeacherRecord
from instil.plan.teacher_training import TeacherTrainer
from instil.plan.trained_model import TrainedModel
from instil.recipe.sections import TeacherConfig


class TeacherScores:
    """Builds the teacher of the last stage that has one, and scores it.

    Args:
        evaluator: gets the teacher's outputs for all splits.
        stages: experiment of each training stage.
        teachers: builds the teachers.
        folder: run folder, where the scores are kept.

    Attributes:
        teacher: the teacher; None before ``measure`` and without a teacher.
        is_scored: whether students can be compared with the teacher.
        keeps_outputs: whether the outputs are written to the folder, for other workers.
    """

    def __init__(
        self,
        evaluator: Evaluator,
        stages: list[Experiment],
        teachers: TeacherTrainer,
        folder: RunFolder,
    ) -> None:
        self.evaluator = evaluator
        self.experiment = evaluator.experiment
        self.stages = stages
        self.teachers = teachers
        self.folder = folder
        self.teacher: Teacher | None = None
        self.is_scored = False
        self.keeps_outputs = False
        self._stage = stages[0]

    def measure(self) -> TrainedModel | None:
        """Build and score the teacher; None where no stage has a teacher of its own.

        Scores in the run folder are read. A teacher whose classes or tokens differ from the data's
        has no scores.
        """
        if self.experiment.recipe.store is not None:
            return self._recorded()
        index, members = self._members()
        stage = self._stage = self.stages[index]
        networks = [self.teachers.network(stage, spec, order) for order, spec in members]
        teacher = prepare_teacher(combine_teachers(stage, [net for net, _ in networks]), stage)
        if teacher is None:
            return None
        self.teacher = teacher = move_teacher(teacher, stage.recipe.train)
        record = teacher_record.read(self.folder)
        if record is None:
            has_own_tokens = any(spec.tokenizer for _, spec in members)
            record = self._score(teacher, stage, has_own_tokens)
            teacher_record.write(self.folder, record)
        self.is_scored = record.is_scored
        return TrainedModel(
            teacher,
            record.test,
            record.validation,
            record.details,
            sum(seconds for _, seconds in networks),
            privacy_cost=record.privacy_cost,
        )

    @property
    def stage_index(self) -> int:
        """Index of the stage whose teacher is scored."""
        return self._members()[0]

    def has_scores(self, teacher: Teacher | None) -> bool:
        """Whether ``measure`` will score the teacher, by its roles and classes.

        Args:
            teacher: teacher of the stage ``stage_index``, which need not be trained. Other roles
                are selected.
        """
        if self.experiment.recipe.store is not None:
            return True
        index, members = self._members()
        if teacher is None or not members or any(spec.tokenizer for _, spec in members):
            return False
        if any(spec.remote for _, spec in members):
            # Answers of a server may cost money.
            return True
        teacher.select_roles({*self.evaluator.task.roles, "logits"}, self._first_batch())
        return self._can_be_scored(teacher, self.stages[index])

    def load_outputs(self) -> None:
        """Read or compute the teacher's outputs that students are compared with, once."""
        compares = self.evaluator.task.compares_teacher
        if not (self.is_scored and compares) or self.evaluator.teacher_outputs:
            return
        assert self.teacher is not None
        splits = self.experiment.splits
        parts = {"validation": splits.validation, "test": splits.test}
        if self._labels_training_samples():
            parts = {"train": splits.train, **parts}
        with autocast_context(self._stage.recipe.train):
            for name, samples in parts.items():
                self.evaluator.teacher_outputs[name] = self._outputs(name, samples)

    def _score(self, teacher: Teacher, stage: Experiment, has_own_tokens: bool) -> TeacherRecord:
        """Evaluate the teacher, and keep its outputs."""
        if has_own_tokens or not self._can_be_scored(teacher, stage):
            privacy_cost = teacher.privacy_cost() if isinstance(teacher, AccountsPrivacy) else {}
            return TeacherRecord(
                is_scored=False, test={}, validation={}, details={}, privacy_cost=privacy_cost
            )
        # The outputs come last: metrics do not compare the teacher with itself.
        with autocast_context(stage.recipe.train):
            validation, _ = self.evaluator.evaluate(teacher, "validation")
            test, details = self.evaluator.evaluate_completely(teacher)
        self.is_scored = True
        self.load_outputs()
        return TeacherRecord(
            is_scored=True, test=test, validation=validation, details=details, privacy_cost={}
        )

    def _outputs(self, split: str, samples: Samples) -> CachedTeacher:
        """Return the teacher's outputs for a split; workers share a file of them."""
        path = teacher_record.outputs_path(self.folder, split)
        if self.keeps_outputs and path.exists():
            return CachedTeacher.load(path)
        assert self.teacher is not None
        outputs = self._cached(split, self.teacher, samples)
        if self.keeps_outputs:
            outputs.save(path)
        return outputs

    def _cached(self, split: str, teacher: Teacher, samples: Samples) -> CachedTeacher:
        """Compute the outputs for metrics, and for training samples those for pseudo-labels."""
        if split == "train":
            return self.evaluator.cache_decisions(teacher, samples)
        return self.evaluator.cache_outputs(teacher, samples)

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
            self.evaluator.teacher_outputs[name] = self._cached(name, teacher, samples)
        self.is_scored = bool(sections)
        teacher = stored_teacher.stored_teacher(self.experiment)
        if self.keeps_outputs:
            teacher_record.write(self.folder, self._record_of_store(facts))
        return TrainedModel(teacher, **facts)

    def _record_of_store(self, facts: dict[str, Any]) -> TeacherRecord:
        scores = {key: facts[key] for key in ("test", "validation", "details")}
        return TeacherRecord(is_scored=self.is_scored, privacy_cost={}, **scores)

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
        evaluator = self.evaluator
        attacks_headline = evaluator.task.headline in evaluator.perturbations
        if attacks_headline and not evaluator.can_perturb(teacher):
            return False
        if not self._has_predictions(teacher):
            return False
        outputs = teacher(self._first_batch())
        return bool(self.evaluator.task.can_score(outputs, self.experiment.splits.classes))

    def _first_batch(self) -> Batch:
        """First validation batch."""
        loader = self.experiment.loader(self.experiment.splits.validation, shuffle=False)
        batch: Batch = to_device(next(iter(loader)), init_distributed())
        return batch
