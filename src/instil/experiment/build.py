"""From a recipe to objects: data, nets, teacher, scheme, training."""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from instil import catalogue, students
from instil.core import Batch, LabelObjective, Net, Objectives, Scheme, Teacher
from instil.data import labels
from instil.data.aligned import read_by_teacher
from instil.data.samples import Facts, Samples
from instil.engine import Engine, Optimization
from instil.experiment.compression import changed, observer
from instil.experiment.experiment import Experiment
from instil.experiment.filtered_teachers import check_predictions_by_index
from instil.generation.options import Sampling
from instil.networks import factory
from instil.networks.inferred_taps import infer_taps
from instil.networks.inputs import input_of
from instil.networks.presets import taps_for
from instil.networks.weights import load_weights
from instil.recipe import (
    build_objectives,
    build_options,
    error_context,
    label_objectives,
    origin_stage,
    stages,
)
from instil.recipe.errors import RecipeError
from instil.recipe.sections import (
    ModelConfig,
    OptimizerConfig,
    Recipe,
    SchemeConfig,
    TeacherConfig,
    TrainConfig,
)
from instil.teachers.ensemble import Ensemble
from instil.teachers.frozen import Frozen
from instil.training.fit import Training


def net(spec: ModelConfig, experiment: Experiment, path: str, teacher: Net | None = None) -> Net:
    """A net as a recipe describes it, with the task's call, the taps of its family and those of the recipe; errors begin with ``path``.

    ``teacher``: what a student begins as that is made of its teacher; by default the recipe's first, as it is built.
    """
    with error_context(path):
        observe = observer(experiment.task.call, experiment.examples)
        made = _net(
            spec,
            experiment.recipe,
            experiment.task.call,
            experiment.read_by(spec).facts,
            observe=observe,
            teacher=teacher,
            example=functools.partial(experiment.examples.__getitems__, [0]),
        )
        if spec.weights is not None:
            load_weights(made.model, experiment.recipe.locate(spec.weights))
        made.freeze(spec.freeze)
        return made


def bare_net(
    recipe: Recipe, facts: Facts, shape: Sequence[int] = (), trust_code: bool = True
) -> Net:
    """The net that a recipe ships, without its data: for data of these facts, whose samples' first input has this ``shape``.

    Where the scheme ships another net than the student, it is prepared once more, with a teacher that knows nothing. Raises ValueError where
    that teacher was itself made by an earlier stage, UntrustedCode where code of the recipe would be
    executed without ``trust_code``.
    """
    every = stages(recipe)
    last, task = every[-1], catalogue.find("task", recipe.task.name)
    example = {
        task.inputs[0]: torch.rand(2, *shape),
        "label": torch.zeros(2, dtype=torch.int64),
        "index": torch.arange(2),
    }
    make = functools.partial(_net, fetch=False, trust_code=trust_code, example=lambda: example)
    with error_context("student"):
        student = make(every[origin_stage(every)].student, recipe, task.call, facts)
    kind: type[Scheme] = catalogue.find("scheme", last.scheme.type)
    if not kind.exports_new_architecture:
        return student
    if any(spec.earlier for spec in last.teachers):
        raise ValueError(
            f"the scheme {last.scheme.type} ships parts of a teacher that an earlier stage made; it cannot be put together anew"
        )
    with error_context("teacher"):
        teachers = [make(spec, last, task.call, facts) for spec in last.teachers]
    parts: dict[str, Any] = {"objectives": build_objectives(last.objectives)}
    if "teacher" in inspect.signature(kind).parameters:
        parts["teacher"] = teacher(teachers)
    made: Scheme = kind(
        student, **parts, **build_options("scheme", last.scheme.type, last.scheme.options, "scheme")
    )
    made.prepare(example)
    return made.export()


def _net(
    spec: ModelConfig,
    recipe: Recipe,
    call: Callable[..., Any],
    facts: Facts,
    fetch: bool = True,
    observe: students.Observe = None,
    teacher: Net | None = None,
    trust_code: bool = True,
    example: Callable[[], Batch] | None = None,
) -> Net:
    given = {key: value for key, value in spec.input.model_dump().items() if value is not None}
    if other := [key for key in given if key not in inspect.signature(call).parameters]:
        raise ValueError(
            f"input.{other[0]}: a model of {recipe.task.name} takes its input as the data are"
        )
    if wanted := given.get("size"):
        facts = facts | {"size": (wanted[0], wanted[-1]) if isinstance(wanted, list) else wanted}
    if spec.model == "teacher":
        model = _of_teacher(spec, recipe, call, facts, fetch, teacher, trust_code)
    else:
        model = factory.build(
            spec.model,
            spec.options,
            base=Path(recipe.folder),
            imports=recipe.imports,
            pretrained=spec.pretrained,
            fetch=fetch,
            trust_code=trust_code,
            **facts,
        )
    model = changed(model, spec, observe)
    asked = functools.partial(call, **{**input_of(model), **given})
    taps = taps_for(model)
    if "features" not in taps and example is not None and _reads_inside(recipe, spec):
        batch = example()
        # Maps of other inputs than images have no stages to tell apart by their resolution.
        taps = infer_taps(model, asked, batch) | taps if "image" in batch else taps
    taps = taps | {role: _paths(where) for role, where in spec.taps.items()}
    return Net(
        model,
        functools.partial(_in_its_tokens, asked)
        if isinstance(spec, TeacherConfig) and spec.tokenizer
        else asked,
        taps,
    )


def _reads_inside(recipe: Recipe, spec: ModelConfig) -> bool:
    """Whether an objective of the recipe, or its scheme, reads more of this net than its logits."""
    side = "teacher" if isinstance(spec, TeacherConfig) else "student"
    if recipe.scheme.type != "offline":
        return True
    kinds = [catalogue.find("objective", goal.type) for goal in recipe.objectives.values()]
    return any(set(need) - {"logits"} for kind in kinds for need in kind.needs.get(side, ()))


def _in_its_tokens(
    call: Callable[..., Any],
    model: nn.Module,
    batch: Batch,
    roles: Collection[str] | None = None,
) -> Any:
    """Outputs of a teacher with a tokenizer of its own, for its part of the batch."""
    return call(model, read_by_teacher(batch), roles=roles)


def _of_teacher(
    spec: ModelConfig,
    recipe: Recipe,
    call: Callable[..., Any],
    facts: Facts,
    fetch: bool,
    teacher: Net | None,
    trust_code: bool,
) -> nn.Module:
    """A copy of the teacher to make a student of."""
    if isinstance(spec, TeacherConfig) or not recipe.teachers or recipe.teachers[0].earlier:
        raise ValueError(
            "model: 'teacher' is what a student begins as whose recipe has a teacher that no stage made"
        )
    first_of = recipe.teachers[0]
    if first_of.tokenizer is not None:
        raise ValueError(
            "model: a student that begins as its teacher reads the same tokens; set data.tokenizer, and leave teacher.tokenizer out"
        )
    if teacher is None:
        teacher = _net(first_of, recipe, call, facts, fetch, trust_code=trust_code)
        if fetch and first_of.weights is not None:
            load_weights(teacher.model, recipe.locate(first_of.weights))
    return copy.deepcopy(teacher.model).requires_grad_(True)


def _paths(where: str | int | Sequence[str | int]) -> str | list[str]:
    return str(where) if isinstance(where, (str, int)) else [str(one) for one in where]


def teacher(nets: Sequence[Net | Teacher]) -> Teacher | None:
    """One net as a fixed teacher, several as an ensemble, none as None."""
    members = [member if isinstance(member, Teacher) else Frozen(member) for member in nets]
    return None if not members else members[0] if len(members) == 1 else Ensemble(members)


def autocast(train: TrainConfig) -> AbstractContextManager[Any]:
    """The context in which a teacher is asked outside of training, so that it computes as in it."""
    return Engine(precision=train.precision).autocast()


def learnt_from(objectives: Objectives, samples: Samples) -> Samples:
    """The samples from which these objectives learn: those with a label, unless one needs none."""
    needed = all(isinstance(objective, LabelObjective) for _, objective in objectives.named())
    return labels.labelled(samples) if needed else samples


def learnt_by(scheme: Scheme, samples: Samples) -> Samples:
    """The samples from which a scheme learns: those with a label, where nothing but its objectives counts samples, and none counts the others."""
    return (
        learnt_from(scheme.objectives, samples) if type(scheme).counts is Scheme.counts else samples
    )


def scheme(experiment: Experiment, student: Net, teacher: Teacher | None) -> Scheme:
    """The scheme of a recipe around a student; errors begin with ``scheme`` or the objective's name."""
    recipe = experiment.recipe
    objectives = build_objectives(recipe.objectives, recipe.balance)
    experiment.task.check(objectives)
    _check_labels(recipe, objectives)
    makes, images = (
        catalogue.find("scheme", recipe.scheme.type).synthetic_inputs,
        recipe.data.surrogate,
    )
    if makes != (images is not None and images.name == "scheme"):
        wrong = (
            "makes its images itself, so this must be scheme"
            if makes
            else "makes no images: noise, blobs or another source"
        )
        raise RecipeError(f"data.surrogate: the scheme {recipe.scheme.type} {wrong}")
    check_texts(recipe)
    check_predictions_by_index(recipe)
    return _scheme(recipe.scheme, experiment, student, teacher, objectives, "scheme")


def check_texts(recipe: Recipe) -> None:
    """RecipeError where a teacher cannot read the texts that are written during training, or cannot read them in time."""
    writes = catalogue.find("scheme", recipe.scheme.type).on_policy_text
    if writes and any(spec.tokenizer for spec in recipe.teachers):
        raise RecipeError(
            f"teacher.tokenizer: the scheme {recipe.scheme.type} writes text in the student's tokens, which a teacher "
            "with another tokenizer cannot read. Expected one tokenizer for both. Leave teacher.tokenizer out, or use "
            "scheme: offline"
        )
    if writes and (recipe.store or any(spec.precompute for spec in recipe.teachers)):
        before = "store" if recipe.store else "teacher.precompute"
        raise RecipeError(
            f"{before}: the scheme {recipe.scheme.type} asks the teacher about texts that are written during training; leave it out"
        )


def _check_labels(recipe: Recipe, objectives: Objectives) -> None:
    """RecipeError for an objective that would look for labels where there are none."""
    other = [
        name
        for name, one in objectives.named()
        if any(one.needs["teacher"]) and not one.handles_token_alignment
    ]
    if other and any(spec.tokenizer for spec in recipe.teachers):
        what = f"{type(objectives[other[0]]).__name__} compares token by token, and the teacher has a tokenizer of its own"
        raise RecipeError(
            f"objectives.{other[0]}: {what}; uld, gold, dskd and dskd_cma find what belongs together"
        )
    made = (
        recipe.data.surrogate is not None
        and not catalogue.find("scheme", recipe.scheme.type).synthetic_labels
    )
    none = "data.surrogate: such images have none" if made else "data.num_labeled is 0"
    none = (
        "data.augment.mixup: a mixture of two images has none"
        if recipe.data.augment.mixup
        else none
    )
    needing = [
        name for name, objective in objectives.named() if isinstance(objective, LabelObjective)
    ]
    if needing and (recipe.data.augment.mixup or recipe.data.num_labeled == 0 or made):
        raise RecipeError(
            f"objectives.{needing[0]}: {type(objectives[needing[0]]).__name__} needs labels, and {none}; leave one of the two out"
        )


def teacher_scheme(experiment: Experiment, net: Net, spec: TeacherConfig) -> Scheme:
    """The scheme by which a teacher is trained on labels before it teaches; errors begin with ``teacher.scheme``."""
    return _scheme(
        spec.scheme,
        experiment,
        net,
        None,
        label_objectives(experiment.recipe, *experiment.task.label_objectives),
        "teacher.scheme",
    )


def _scheme(
    method: SchemeConfig,
    experiment: Experiment,
    student: Net,
    teacher: Teacher | None,
    objectives: Objectives,
    path: str,
) -> Scheme:
    """A scheme with its options, whose nets are built too."""
    kind = catalogue.find("scheme", method.type)
    options = build_options("scheme", method.type, method.options, path)
    parts: dict[str, Any] = {"student": student, "objectives": objectives}
    if "teacher" in inspect.signature(kind).parameters:
        parts["teacher"] = teacher
    elif teacher is not None:
        raise RecipeError(
            f"{path}: {kind.__name__} takes no teacher; leave the recipe's teacher out (teacher=null)"
        )
    for name, given in options.items():
        if isinstance(given, ModelConfig):
            options[name] = net(given, experiment, f"{path}.{name}")
        elif isinstance(given, list) and given and isinstance(given[0], ModelConfig):
            options[name] = [
                net(one, experiment, f"{path}.{name}.{number}") for number, one in enumerate(given)
            ]
    # What is written ends as the texts of the data do, and consists of their tokens.
    if "sampling" in inspect.signature(kind).parameters:
        sampling = options.get("sampling", inspect.signature(kind).parameters["sampling"].default)
        if isinstance(sampling, Sampling):
            facts = experiment.facts
            options["sampling"] = sampling.fill(facts.get("end"), facts.get("vocabulary"))
    # A table per training sample has a row for every index of the data.
    if "num_samples" in inspect.signature(kind).parameters and options.get("num_samples") is None:
        options["num_samples"] = int(experiment.splits.train.index.max()) + 1
    with error_context(path):
        made: Scheme = kind(**parts, **options)
    return made


def steps(experiment: Experiment) -> int:
    """Optimizer steps that the ``train`` section asks for on all samples of the student."""
    train = experiment.recipe.train
    if train.steps is not None:
        return train.steps
    return (train.epochs or 0) * experiment.loader(
        experiment.samples, accumulate=train.accumulate, sampler=experiment.recipe.data.sampler
    ).steps


def training(
    train: TrainConfig,
    seed: int,
    length: int | None = None,
    learners: Sequence[str] | None = None,
    until: float = 1.0,
) -> Training:
    """The recipe's ``train`` section as ``fit`` takes it; ``length``: so many steps instead of its own; ``learners``: those there are."""
    return Training(
        epochs=None if length else train.epochs,
        steps=length or train.steps,
        until=until,
        optimizer=_optimization(train.optimizer),
        optimizers={
            learner: _optimization(train.optimizer_of(learner))
            for learner in train.optimizers
            if learners is None or learner in learners
        },
        schedule=train.schedule,
        warmup=train.warmup,
        accumulate=train.accumulate,
        allow_coupled_cut=train.allow_coupled_cut,
        precision=train.precision,
        clip=train.clip,
        compile=train.compile,
        shard=train.shard,
        seed=seed,
        evaluate_every=train.evaluate_every,
        evaluate_steps=train.evaluate_steps,
        checkpoint_every=train.checkpoint_every,
        checkpoint_steps=train.checkpoint_steps,
        checkpoint_minutes=train.checkpoint_minutes,
        sync_batch_norm=train.sync_batch_norm,
    )


def _optimization(optimizer: OptimizerConfig) -> Optimization:
    options = {"lr": optimizer.lr, **optimizer.options}
    return Optimization(optimizer.type, options, tuple(optimizer.groups))
