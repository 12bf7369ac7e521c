"""A recipe examined on one batch; nothing that is trained here is kept."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from instil.core import UNLABELLED, Batch, LabelObjective, Net, Outputs, Scheme, Update
from instil.engine import Engine
from instil.experiment.data_checks import data_problems, data_summary, weight_problems
from instil.experiment.device import on_device_of_recipe
from instil.experiment.dry_run import dry_run
from instil.experiment.experiment import Experiment
from instil.experiment.schemes import samples_for_scheme
from instil.experiment.trained_teachers import load_if_trained
from instil.experiment.training_options import build_training, num_training_steps
from instil.experiment.weighting_advice import weighting_advice
from instil.plan.run_estimate import estimate_run
from instil.recipe.learning_rate import learning_rate_note
from instil.recipe.sections import Recipe
from instil.roles import Projection, Sampled, Top
from instil.training.step import train_step

TIMED_STEPS = 5
TRIED_STEPS = 8
FAINT = 0.01  # an objective with less than this share of the gradient does next to nothing


@on_device_of_recipe
def doctor(recipe: Recipe) -> dict[str, Any]:
    """Shapes, taps, adapters, losses with their share of the gradient, teacher against student, memory and time.

    Raises ValueError for what would stop a run before its first step; what would let it run badly is among the ``problems``.
    """
    experiment = Experiment.from_recipe(recipe)
    found = [
        examine_stage(stage, scheme, trained)
        for stage, scheme, trained in dry_run(experiment, load_if_trained)
    ]
    student_seconds = sum(stage["forecast"]["seconds"] for stage in found)
    return {
        "recipe": recipe.name,
        "data": data_summary(experiment),
        "run": estimate_run(experiment, student_seconds),
        "stages": found,
        "notes": [
            *getattr(experiment.visible_samples, "about", ()),
            *experiment.notes,
            *_learning_rates(experiment),
        ],
        "problems": [
            *(problem for stage in found for problem in stage["problems"]),
            *experiment.warnings,
        ],
    }


def _learning_rates(experiment: Experiment) -> list[str]:
    """One note per stage with another learning rate or reason."""
    has_stages = bool(experiment.recipe.stages)
    notes = [learning_rate_note(stage.recipe, has_stages) for stage in experiment.stages]
    return list(dict.fromkeys(notes))


def examine_stage(experiment: Experiment, scheme: Scheme, trained: bool) -> dict[str, Any]:
    """What one stage does on its first batch; ``trained``: its teachers are."""
    stage = experiment.recipe
    seed = stage.seeds[0]
    engine = Engine(precision=stage.train.precision)
    training = build_training(stage.train, seed)
    engine.setup(scheme, lambda learner: training.optimizers.get(learner, training.optimizer))
    clock = {
        "step": torch.tensor(0),
        "progress": torch.tensor(0.0),
        "seed": torch.tensor(seed),
        "epoch_ends": torch.tensor(False),
    }
    samples = samples_for_scheme(scheme, experiment.train_data(seed))
    loader = experiment.loader(
        samples, seed, accumulate=stage.train.accumulate, sampler=stage.data.sampler, mixes=True
    )
    batch = engine.move(next(iter(loader))) | clock
    with torch.no_grad():
        student, teacher = scheme.student(batch), scheme.teacher_outputs(batch)
    scheme.train()
    losses = _losses_of_steps(scheme, engine, batch)
    stage_found: dict[str, Any] = {
        "scheme": stage.scheme.type,
        "teacher_trained": trained,
        "student": _side(scheme.student, student),
        "teacher": _side(scheme.teacher, teacher) if scheme.teacher is not None else None,
        "objectives": losses,
        "match": _match(student, teacher, batch) if experiment.task.kind != "real" else {},
        "forecast": _forecast(experiment, scheme, engine, batch),
    }
    problems = [
        *data_problems(experiment, samples, batch, scheme),
        *weight_problems(experiment),
        *_problems(stage_found, scheme),
        *weighting_advice(experiment),
    ]
    return stage_found | {"problems": problems}


def _side(net: nn.Module, outputs: Outputs) -> dict[str, Any]:
    inner = net if isinstance(net, Net) else getattr(net, "net", None)
    return {
        "parameters": sum(parameter.numel() for parameter in net.parameters()),
        "roles": {role: _shape(value) for role, value in outputs.items() if role != "members"},
        "taps": dict(inner.taps) if isinstance(inner, Net) else {},
    }


def _shape(value: Any) -> Any:
    """Of a tensor, of each of several, or of the logits that another signal stands for; strings are counted."""
    if isinstance(value, Projection):
        return [*value.hidden.shape[:-1], len(value.weight)]
    if isinstance(value, (Top, Sampled)):
        return _shape(value.indices if isinstance(value, Top) else value.ids)
    return (
        [_shape(part) for part in value]
        if isinstance(value, tuple)
        else [len(value)]
        if isinstance(value, str)
        else list(value.shape)
    )


def _losses_of_steps(scheme: Scheme, engine: Engine, batch: Batch) -> dict[str, dict[str, Any]]:
    """Every loss in a step in which all count, if there is one among a few: steps may learn from different texts."""
    tried: list[dict[str, dict[str, Any]]] = []
    for step in range(TRIED_STEPS):
        tried.append(
            _losses(scheme, engine, scheme.before_step(batch | {"step": torch.tensor(step)}))
        )
        if all(entry["count"] for entry in tried[-1].values()):
            break
    return max(tried, key=lambda found: sum(entry["count"] > 0 for entry in found.values()))


def _losses(scheme: Scheme, engine: Engine, batch: Batch) -> dict[str, dict[str, Any]]:
    """Every loss of every update: its value, its count, the norm of its gradient by its learner's parameters, and the share of that."""
    counts = scheme.counts(batch)
    found: dict[str, dict[str, Any]] = {}
    run = scheme.step(batch)
    while True:
        with engine.autocast():
            update = next(run, None)
        if update is None:
            break
        found.update(_of_update(update, scheme, engine, counts))
    for learner in {entry["learner"] for entry in found.values()}:
        total = sum(entry["gradient"] for entry in found.values() if entry["learner"] == learner)
        for entry in found.values():
            if entry["learner"] == learner:
                entry["share"] = entry["gradient"] / total if total else 0.0
    for name, objective in scheme.objectives.named():
        for entry in (entry for key, entry in found.items() if key.partition("/")[2] == name):
            entry["reads"] = {side: list(roles) for side, roles in objective.reads.items()}
            entry["adapters"] = sum(parameter.numel() for parameter in objective.parameters())
            entry["plan"] = list(getattr(objective, "plan", []))
    return found


def _of_update(
    update: Update, scheme: Scheme, engine: Engine, counts: Mapping[str, Tensor]
) -> dict[str, dict[str, Any]]:
    learners = (update.learner,) if isinstance(update.learner, str) else update.learner
    parameters = [parameter for learner in learners for parameter in engine.parameters[learner]]
    mine = {id(parameter) for learner in learners for parameter in engine.nets[learner]}
    found = {}
    for name, loss in update.losses.items():
        grads = (
            torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
            if loss.requires_grad
            else [None] * len(parameters)
        )
        norms = [
            float(g.norm())
            for p, g in zip(parameters, grads, strict=True)
            if g is not None and id(p) in mine
        ]
        found[f"{'+'.join(learners)}/{name}"] = {
            "learner": "+".join(learners),
            "value": float(loss.detach()),
            "count": float(counts[name].sum()),
            "constant": not loss.requires_grad,
            "gradient": sum(norm**2 for norm in norms) ** 0.5,
        }
    return found


def _match(student: Outputs, teacher: Outputs, batch: Batch) -> dict[str, float]:
    """How often, on this batch, both decide alike, and how often each is right."""
    match: dict[str, float] = {}
    label = batch.get("label")
    for side, outputs in (("student", student), ("teacher", teacher)):
        if (
            label is None
            or label.is_floating_point()
            or "logits" not in outputs
            or label.shape != outputs["logits"].shape[:-1]
        ):
            continue
        if (known := label != UNLABELLED).any():
            match[f"{side}_accuracy"] = float(
                (outputs["logits"].argmax(-1) == label)[known].float().mean()
            )
    if (
        "logits" in student
        and "logits" in teacher
        and student["logits"].shape == teacher["logits"].shape
    ):
        match["agreement"] = float(
            (student["logits"].argmax(-1) == teacher["logits"].argmax(-1)).float().mean()
        )
    return match


def _forecast(
    experiment: Experiment, scheme: Scheme, engine: Engine, batch: Batch
) -> dict[str, float]:
    """Steps, seconds for all of them on this machine, and bytes that one step needs: weights, gradients, optimizer state, what backward keeps."""
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        train_step(engine, scheme, [batch])
    began = time.perf_counter()
    for _ in range(TIMED_STEPS):
        train_step(engine, scheme, [batch])
    seconds = (time.perf_counter() - began) / TIMED_STEPS * experiment.recipe.train.accumulate
    weights = {
        p.untyped_storage().data_ptr(): p.untyped_storage().nbytes() for p in scheme.parameters()
    }
    trained = sum(p.numel() * p.element_size() for p in scheme.parameters() if p.requires_grad)
    state = sum(
        t.numel() * t.element_size()
        for o in engine.optimizers.values()
        for s in o.state.values()
        for t in s.values()
        if isinstance(t, Tensor)
    )
    steps = num_training_steps(experiment)
    activations = sum(size for place, size in kept.items() if place not in weights)
    return {
        "steps": steps,
        "seconds_per_step": seconds,
        "seconds": seconds * steps,
        "bytes": sum(weights.values()) + trained + state + activations,
        "activation_bytes": activations,
    }


def _problems(found: Mapping[str, Any], scheme: Scheme) -> Iterator[str]:
    """What would let this stage run, but badly."""
    for key, entry in found["objectives"].items():
        name = (
            f"objectives.{key.partition('/')[2]}"
            if key.partition("/")[2] in scheme.objectives
            else key
        )
        # A label loss over the whole batch has a count where no item has a label: its value is 0.
        on_labels = _label_objective(scheme, key)
        if not entry["count"] or (entry["value"] == 0 and on_labels is not None):
            yield f"{name}: nothing in the batch counts for it (no labels, or nothing valid)"
        elif entry["constant"]:
            yield f"{name}: the loss is constant, it does not depend on learner '{entry['learner']}'"
        elif entry["value"] != entry["value"] or abs(entry["value"]) == float("inf"):
            yield f"{name}: the loss is {entry['value']}"
        elif entry["gradient"] == 0 and scheme.card.source != "self":
            yield f"{name}: its gradient does not reach learner '{entry['learner']}'"
        elif on_labels is not None and on_labels.average == "batch":
            continue  # few labels are meant to have a small share of the gradient
        elif found["teacher_trained"] and entry["share"] < FAINT and entry["gradient"] > 0:
            yield f"{name}: has {100 * entry['share']:.2g} % of the gradient; raise its weight or leave it out"
    if scheme.teacher is not None and any(part.training for part in scheme.teacher.modules()):
        yield "teacher: a part of it is in train mode"
    match = found["match"]
    fixed = (
        scheme.teacher is not None and not scheme.teacher.changes
    )  # what learns with the student knows nothing yet
    if (
        fixed
        and found["teacher_trained"]
        and match.get("teacher_accuracy", 1.0) < match.get("student_accuracy", 0.0)
    ):
        yield "teacher: it is right less often than the untrained student on this batch; are its classes in the data's order, its inputs normalised?"


def _label_objective(scheme: Scheme, key: str) -> LabelObjective | None:
    """The objective behind the loss ``learner/name`` if it counts labelled items only."""
    objective = dict(scheme.objectives.named()).get(key.partition("/")[2])
    return objective if isinstance(objective, LabelObjective) else None
