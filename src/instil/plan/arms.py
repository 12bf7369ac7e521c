"""The arms of an experiment: the teacher, the student alone, the baselines a gain must beat, the distilled student."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import torch
from torch import nn

from instil import catalogue
from instil.capabilities import AccountsPrivacy, EvaluatesRobustness
from instil.cards import has_tag
from instil.core import UNLABELLED, Net, Scheme, Teacher
from instil.data.loader import Repeated
from instil.data.samples import Samples
from instil.data.surrogate_images import SyntheticImages
from instil.engine import init_distributed, rank, wait_for_ranks
from instil.experiment import trained_teachers as trained_teachers
from instil.experiment.cached_teacher import CachedTeacher
from instil.experiment.dry_run import dry_run
from instil.experiment.experiment import Experiment
from instil.experiment.networks import build_network
from instil.experiment.schemes import (
    build_scheme,
    build_teacher_scheme,
    samples_for_objectives,
    samples_for_scheme,
)
from instil.experiment.sources import IMAGE_SOURCES
from instil.experiment.stored_teacher import open_store, stored_teacher
from instil.experiment.teachers import (
    combine_teachers,
    prepare_teacher,
    teacher_class_names,
    teacher_training_data,
)
from instil.experiment.training_options import autocast_context, build_training, num_training_steps
from instil.export.student import save_student
from instil.files.atomic import atomic
from instil.plan import finished_arms as finished
from instil.plan.divergence import divergence_message
from instil.plan.pictures import encode_png, image_grid, synthetic_images
from instil.plan.run_folder import RunFolder
from instil.recipe import build_objectives, label_objectives, origin_stage
from instil.recipe.defaults import DATA_FREE_BASELINES
from instil.recipe.sections import TeacherConfig
from instil.schemes.offline.offline import Offline
from instil.tasks.bases.task import to_device
from instil.teachers.frozen import Frozen
from instil.training.fit import FitResult, Training, TrainState, fit
from instil.training.monitor import NotFiniteError

NUM_SAVED_IMAGES = 16
Tick = Callable[[str, "int | None", TrainState], None]


@dataclass
class Arm:
    """A trained net, its metrics on the test and validation splits, what there is to draw, and the seconds that its training took.

    ``cost``: what it costs, where that cannot be measured on ``net``; ``privacy_cost``: what its answers to the
    training samples cost; ``latency``: of one answer, once it was measured.
    """

    net: nn.Module
    test: dict[str, float]
    validation: dict[str, float]
    details: dict[str, Any]
    seconds: float
    cost: dict[str, Any] | None = None
    privacy_cost: dict[str, Any] = field(default_factory=dict)
    latency: dict[str, Any] | None = None


class Arms:
    """Trains the arms of one experiment into its run folder; what is finished there is taken from there."""

    def __init__(self, experiment: Experiment, folder: RunFolder, on_step: Tick):
        self.experiment, self.folder, self.on_step = experiment, folder, on_step
        self.stages = experiment.stages
        self.steps = [num_training_steps(stage) for stage in self.stages]
        self.students: dict[str, Callable[[int], tuple[Net, float]]] = {
            "alone": lambda seed: self._on_labels(
                seed, self.experiment.task.label_objectives, "alone"
            ),
            "label_smoothing": lambda seed: self._on_labels(
                seed, ("label_smoothing",), "label_smoothing"
            ),
            "pseudo_labels": self._on_pseudo_labels,
            **{
                name: functools.partial(self._on_made_images, name=name)
                for name in DATA_FREE_BASELINES
            },
            "distilled": self._distilled,
        }
        self._remembered: dict[str, CachedTeacher] = {}
        self._teacher: Teacher | None = None
        self._others: dict[str, Net] = {}
        self._records: list[dict[str, Any]] = []  # of the arm that is being trained
        self._logged: dict[str, Path] = {}  # whose lines of a teacher are in metrics.jsonl
        self._ready: WeakValueDictionary[str, Net] = (
            WeakValueDictionary()
        )  # as long as somebody else keeps them: they may be large

    def planned(self) -> list[str]:
        """The arms of every seed, in order: pseudo-labels need a teacher that knows the classes."""
        baselines = [
            name
            for name in self.experiment.recipe.baselines
            if name != "pseudo_labels" or self._remembered
        ]
        return [*baselines, "distilled"]

    def teacher(self) -> Arm | None:
        """The teacher of the last stage that has one of its own, scored where it knows the classes; None where no stage has."""
        if self.experiment.recipe.store is not None:
            return self._recorded()
        named = [
            [(n, spec) for n, spec in enumerate(stage.recipe.teachers) if not spec.earlier]
            for stage in self.stages
        ]
        last = max((number for number, specs in enumerate(named) if specs), default=0)
        members = [
            self._teacher_net(self.stages[last], spec, number) for number, spec in named[last]
        ]
        teacher = prepare_teacher(
            combine_teachers(self.stages[last], [net for net, _ in members]), self.stages[last]
        )
        if teacher is None:
            return None
        self._teacher = teacher
        seconds = sum(seconds for _, seconds in members)
        splits = self.experiment.splits
        other = any(
            spec.tokenizer for _, spec in named[last]
        )  # scores of other tokens do not compare
        if other or not self._can_be_scored(teacher, self.stages[last]):
            return Arm(teacher, {}, {}, {}, seconds, privacy_cost=_privacy_cost(teacher))
        parts = (
            {"train": splits.train} if "pseudo_labels" in self.experiment.recipe.baselines else {}
        )
        parts |= {"validation": splits.validation, "test": splits.test}
        load = functools.partial(self.experiment.loader, shuffle=False)
        with autocast_context(self.stages[last].recipe.train):
            self._remembered = {
                name: self._remember(teacher, samples) for name, samples in parts.items()
            }
            validation, _ = self.experiment.task.evaluate(teacher, load(splits.validation))
            test, details = self.experiment.task.evaluate(teacher, load(splits.test))
            test |= self._trials(teacher) | self._written(teacher, details)
        return Arm(teacher, test, validation, details, seconds)

    def _recorded(self) -> Arm:
        """The teacher whose answers are recorded, with the scores and the cost that it had then."""
        facts = open_store(self.experiment).manifest.teacher.model_dump()
        splits = self.experiment.splits
        parts = (
            {"train": ("plain", splits.train)}
            if "pseudo_labels" in self.experiment.recipe.baselines
            else {}
        )
        parts |= (
            {"validation": ("validation", splits.validation), "test": ("test", splits.test)}
            if facts["test"]
            else {}
        )
        self._remembered = {
            name: self._remember(stored_teacher(self.experiment, section), samples)
            for name, (section, samples) in parts.items()
        }
        return Arm(stored_teacher(self.experiment), **facts)

    def student(self, name: str, seed: int) -> Arm:
        """One arm for one seed: as its files in the run folder tell it, or trained and then written there."""
        done = finished.read(self.folder, name, seed)
        if done is not None:
            net = self._untrained(name, seed)
            if finished.load_weights(self.folder, name, seed, net):
                self._log_again(name, seed, done.records)
                finished.delete_checkpoints(self.folder, name, seed, len(self.stages))
                return Arm(net, done.test, done.validation, done.details, done.seconds)
        self.folder.remove_records(name, seed)
        self._records = []
        net, seconds = self.students[name](seed)
        validation, _ = self._evaluate(net, "validation")
        test, details = self._evaluate(net, "test")
        teacher = (
            self._teacher.to(init_distributed()) if self._teacher and self._remembered else None
        )  # where results are put together it goes to the CPU
        test |= self._trials(net) | self._written(net, details, teacher)
        test |= self._beside(seed) if name == "distilled" else {}
        arm = {"test": test, "validation": validation, "details": details, "seconds": seconds}
        records = {"records": self._records}
        finished.write(self.folder, name, seed, net, arm | records, len(self.stages))
        return Arm(net, test, validation, details, seconds)

    def _untrained(self, name: str, seed: int) -> Net:
        """A net of the architecture that an arm ships, to be filled with its weights."""
        scheme = self.stages[-1].recipe.scheme.type
        if name != "distilled" or not has_tag(catalogue.find("scheme", scheme), "new_architecture"):
            return self._new_student(seed)
        *_, (_, rehearsed, _) = dry_run(self.experiment)
        return rehearsed.export()

    def _log_again(self, name: str, seed: int | None, records: Sequence[dict[str, Any]]) -> None:
        """Put the lines of a finished arm where they stand in an uninterrupted run."""
        self.folder.remove_records(name, seed)
        for record in records:
            self.folder.log(record)

    def _evaluate(
        self, net: nn.Module, split: str, experiment: Experiment | None = None
    ) -> tuple[dict[str, float], dict[str, Any]]:
        """On the recipe's data, or those of another ``experiment``, which the teacher's answers are not about."""
        splits = (experiment or self.experiment).splits
        samples = splits.test if split == "test" else splits.validation
        said = self._remembered.get(split) if splits is self.experiment.splits else None
        metrics, details = self.experiment.task.evaluate(
            net, self.experiment.loader(samples, shuffle=False), said
        )
        return metrics, details

    def _written(
        self, net: nn.Module, details: dict[str, Any], teacher: Teacher | None = None
    ) -> dict[str, float]:
        """Metrics of what a net writes by itself after test samples; adds what there is to be seen of it to ``details``."""
        metrics, shown = self.experiment.task.evaluate_generation(
            net, self.experiment.splits.test, teacher
        )
        details |= shown
        return dict(metrics)

    def _beside(self, seed: int) -> dict[str, float]:
        """The headline metric of each further student of the last stage, whose weights are kept in the run folder."""
        found = {}
        for learner, net in self._others.items():
            found[f"{learner}_{self.experiment.task.headline}"] = self._evaluate(net, "test")[0][
                self.experiment.task.headline
            ]
            if rank() == 0:
                save_student(net, self.folder.path / f"{learner}-{seed}.safetensors")
        return found

    def _trials(self, net: nn.Module) -> dict[str, float]:
        """The headline metric of a net on the test samples as the last stage's scheme makes them harder for it."""
        task, scheme = self.experiment.task, self.stages[-1].recipe.scheme
        kind: type[Scheme] = catalogue.find("scheme", scheme.type)
        found: dict[str, float] = {}
        if not issubclass(kind, EvaluatesRobustness):
            return found
        for name, trial in kind.robustness_evaluations(scheme.options).items():
            batches = (
                trial(net, to_device(task.as_dict(batch), init_distributed()))
                for batch in self.experiment.loader(self.experiment.splits.test, shuffle=False)
            )
            found[name] = task.evaluate(net, batches)[0][task.headline]
        return found

    def _can_be_scored(self, teacher: Teacher, stage: Experiment) -> bool:
        if has_tag(
            teacher, "disjoint_data"
        ):  # it answers what it met alone, and every answer has its price
            return False
        named = [
            tuple(teacher_class_names(stage, number))
            for number in range(len(stage.recipe.teachers))
        ]
        if not has_tag(teacher, "merged_classes") and any(
            names != tuple(self.experiment.splits.classes) for names in named
        ):
            return False
        batch = next(iter(self.experiment.loader(self.experiment.splits.validation, shuffle=False)))
        return bool(
            self.experiment.task.can_score(
                teacher(to_device(batch, init_distributed())), self.experiment.splits.classes
            )
        )

    def _teacher_net(
        self, stage: Experiment, spec: TeacherConfig, number: int
    ) -> tuple[Net, float]:
        """A teacher as its weights or an earlier run tell it, or trained first, once; with its training seconds.

        Where stages want it at several moments of one training, this goes on from the moment before.
        """
        if spec.ready:
            return self._ready_net(stage, spec, number), 0.0
        net = trained_teachers.build_final_architecture(stage, spec, number)
        train = stage.recipe.teacher_train or stage.recipe.train
        path = trained_teachers.cache_path(stage, spec, number)
        is_only = sum(not one.earlier for one in stage.recipe.teachers) == 1
        name = "teacher" if is_only else f"teacher{number}"
        if (cached := trained_teachers.read_cached(net, path)) is not None:
            if self._logged.get(name) != path:
                line = {"seed": None, "arm": name, "stage": 0}
                self._log_again(name, None, [line | record for record in cached.records])
                self._logged[name] = path
            finished.delete_checkpoints(self.folder, name, None, 1)
            return net, cached.seconds
        self.folder.remove_records(name, None)
        self._logged[name] = path
        moments = trained_teachers.checkpoint_shares(self.stages, stage, spec, number)
        for earlier in (moment for moment in moments if moment < spec.checkpoint_at):
            self._teacher_net(stage, spec.model_copy(update={"checkpoint_at": earlier}), number)
            self.folder.remove_records(name, None)
        if len(moments) > 1 or has_tag(
            catalogue.find("scheme", spec.scheme.type), "new_architecture"
        ):
            # Built again: training starts from the bare network, with the random state of its seed.
            net = trained_teachers.build_teacher(stage, spec, number)
        own = teacher_training_data(stage, spec, number).for_network(spec)
        scheme = build_teacher_scheme(own, net, spec)
        training = build_training(
            train, number, learners=list(scheme.learners), until=spec.checkpoint_at
        )
        samples = samples_for_scheme(scheme, own.splits.train)
        trained = self._fit(name, None, scheme, samples, training, own)
        if rank() == 0:
            save_student(
                trained.net, path, {"seconds": trained.seconds, "records": trained.records}
            )
        wait_for_ranks()
        if spec.checkpoint_at == moments[-1]:
            finished.delete_checkpoints(self.folder, name, None, 1)
        return trained.net, trained.seconds

    def _ready_net(self, stage: Experiment, spec: TeacherConfig, number: int) -> Net:
        """A teacher that needs no training: nothing but sharding changes it, so that all who ask for it at the same time get the same net."""
        key = repr((spec, number, stage.recipe.data))
        net = None if stage.recipe.train.shard else self._ready.get(key)
        if net is None:
            net = self._ready[key] = trained_teachers.build_teacher(stage, spec, number)
        return net

    def _on_labels(self, seed: int, objectives: tuple[str, ...], name: str) -> tuple[Net, float]:
        """The student on its labels alone, with as many steps and the same initial weights as the distilled one."""
        samples = samples_for_objectives(
            label_objectives(self.experiment.recipe, *objectives), self.stages[-1].train_data(seed)
        )
        return self._without_teacher(seed, objectives, name, samples)

    def _on_pseudo_labels(self, seed: int) -> tuple[Net, float]:
        """The student on the labels it has and, for the other samples, on what the teacher decides: the likeliest class, or yes or no for each."""
        samples = self.stages[-1].train_data(seed)
        logits = self._remembered["train"]({"index": samples.index})["logits"].cpu()
        guess = logits.argmax(-1) if samples.kind == "single" else (logits > 0).to(samples.label)
        whole = samples.relabel(torch.where(samples.label == UNLABELLED, guess, samples.label))
        return self._without_teacher(
            seed, self.experiment.task.label_objectives, "pseudo_labels", whole
        )

    def _on_made_images(self, seed: int, name: str) -> tuple[Net, float]:
        """The student by the recipe's objectives, on noise or blobs."""
        stage, objectives = self.stages[-1], build_objectives(self.experiment.recipe.objectives)
        student = self._new_student(seed)
        samples = SyntheticImages(
            stage.splits.validation, len(stage.splits.train), IMAGE_SOURCES[name]()
        )
        scheme = Offline(student, copy.deepcopy(self._teacher), objectives)
        training = build_training(stage.recipe.train, seed, sum(self.steps), list(scheme.learners))
        trained = self._fit(name, seed, scheme, samples, training, stage)
        return trained.net, trained.seconds

    def _without_teacher(
        self, seed: int, objectives: tuple[str, ...], name: str, samples: Samples
    ) -> tuple[Net, float]:
        stage = self.stages[-1]
        scheme = Offline(
            self._new_student(seed), None, label_objectives(self.experiment.recipe, *objectives)
        )
        training = build_training(stage.recipe.train, seed, sum(self.steps), list(scheme.learners))
        trained = self._fit(name, seed, scheme, samples, training, stage)
        return trained.net, trained.seconds

    def _distilled(self, seed: int) -> tuple[Net, float]:
        """The recipe's scheme, stage after stage."""
        made: dict[str, Net] = {}
        seconds = 0.0
        for number, stage in enumerate(self.stages):
            teacher = self._stage_teacher(
                stage, made
            )  # made first: it sets the random state, which must be the seed's from here on
            if stage.recipe.student.earlier:
                student = copy.deepcopy(made[stage.recipe.student.model])
                student.freeze(stage.recipe.student.freeze)
                torch.manual_seed(seed + 1_000_003 * number)
            else:
                student = self._new_student(seed, number)
            scheme = build_scheme(stage, student, teacher)
            samples = samples_for_scheme(scheme, stage.train_data(seed))
            trained = self._fit(
                "distilled",
                seed,
                scheme,
                samples,
                build_training(stage.recipe.train, seed),
                stage,
                number,
            )
            made |= {"previous": trained.net, f"stage:{stage.recipe.name}": trained.net}
            seconds += trained.seconds
            self._others = trained.others
            if stage.recipe.data.surrogate is not None:
                self._draw(scheme, stage, seed)
        return made["previous"], seconds

    def _draw(self, scheme: Scheme, stage: Experiment, seed: int) -> None:
        """Some of the images that a student without training images learnt from, beside its weights."""
        images = synthetic_images(scheme, stage, seed)
        if images is not None and rank() == 0:
            with atomic(self.folder.arm_file("distilled", seed, ".png")) as temporary:
                temporary.write_bytes(encode_png(image_grid(images[:NUM_SAVED_IMAGES])))

    def _stage_teacher(self, stage: Experiment, made: dict[str, Net]) -> Teacher | None:
        """The teacher of a stage; ``made``: the nets of earlier stages by the names that specifications know them by."""
        if stage.recipe.store is not None:
            return stored_teacher(stage)
        members: list[Net | Teacher] = []
        for number, spec in enumerate(stage.recipe.teachers):
            net = (
                copy.deepcopy(made[spec.model])
                if spec.earlier
                else self._teacher_net(stage, spec, number)[0]
            )
            members.append(
                self._asked_once(Frozen(net).to(init_distributed()), stage)
                if spec.precompute
                else net
            )
        return prepare_teacher(combine_teachers(stage, members), stage)

    def _asked_once(self, teacher: Teacher, stage: Experiment) -> CachedTeacher:
        """A plain teacher's answers about the training samples: what the stage's objectives read, and what the task compares."""
        there = teacher(
            to_device(
                next(iter(self.experiment.loader(stage.samples, shuffle=False))), init_distributed()
            )
        )
        needs = [
            roles
            for _, goal in build_objectives(stage.recipe.objectives).named()
            for roles in goal.needs["teacher"]
        ]
        read = [
            next(role for role in roles if role in there)
            for roles in needs
            if there.keys() & set(roles)
        ]
        with autocast_context(stage.recipe.train):
            return self._remember(teacher, stage.samples, read)

    def _remember(
        self, teacher: Teacher, samples: Samples, read: Sequence[str] = ()
    ) -> CachedTeacher:
        roles = dict.fromkeys(
            [*read, *(self.experiment.task.teacher_eval_roles or self.experiment.task.roles)]
        )
        return CachedTeacher(teacher, tuple(roles), self.experiment.loader(samples, shuffle=False))

    def _new_student(self, seed: int, number: int = -1) -> Net:
        """The student of a stage (by default the last) before training: for one seed the one that is shipped starts alike in every arm."""
        recipes = [stage.recipe for stage in self.stages]
        began = origin_stage(recipes)
        spec, stage = recipes[number if number >= 0 else began].student, self.stages[number]
        teacher = (
            self._teacher_net(stage, stage.recipe.teachers[0], 0)[0]
            if trained_teachers.starts_from_teacher(spec, stage)
            else None
        )
        torch.manual_seed(
            seed + 1_000_003 * (abs(began - number) if number >= 0 else 0)
        )  # after the teacher, who is made from a seed of its own
        net = build_network(spec, stage, "student", teacher)
        if number < 0:  # what no stage of it trains is not trained in the baselines either
            own = [
                recipe.student.freeze
                for n, recipe in enumerate(recipes)
                if origin_stage(recipes, n) == began
            ]
            net.freeze([path for path in own[0] if all(path in paths for paths in own)])
        return net

    def _fit(
        self,
        name: str,
        seed: int | None,
        scheme: Scheme,
        samples: Samples,
        training: Training,
        experiment: Experiment,
        stage: int = 0,
    ) -> FitResult:
        """One fit of an arm: logged, checkpointed, and resumed where it stopped."""
        own: dict[str, Any] = (
            {"sampler": experiment.recipe.data.sampler, "with_mixing": True}
            if name == "distilled"
            else {}
        )
        loader = experiment.loader(samples, training.seed, accumulate=training.accumulate, **own)
        whole = experiment.splits.train if seed is None else experiment.samples
        steps = experiment.loader(
            whole, accumulate=training.accumulate, sampler=own.get("sampler", "shuffled")
        ).steps
        try:
            return fit(
                scheme,
                Repeated(loader, steps) if len(samples) < len(whole) else loader,
                training,
                evaluate=lambda net: self._evaluate(net, "validation", experiment)[0],
                checkpoint=finished.checkpoint(self.folder, name, seed, stage),
                report=lambda record: self._log(
                    {"seed": seed, "arm": name, "stage": stage, **record}
                ),
                on_step=lambda clock: self.on_step(name, seed, clock),
            )
        except NotFiniteError as error:
            raise RuntimeError(
                divergence_message(error, name, seed, experiment.recipe, training)
            ) from error

    def _log(self, record: dict[str, Any]) -> None:
        self._records.append(record)
        self.folder.log(record)


def _privacy_cost(teacher: Teacher) -> dict[str, Any]:
    """Privacy cost of a teacher's outputs; empty without one."""
    return teacher.privacy_cost() if isinstance(teacher, AccountsPrivacy) else {}
