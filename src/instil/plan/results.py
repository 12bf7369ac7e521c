"""Content of ``result.json``: metrics over the seeds, gains, costs and warnings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import nn

from instil import catalogue
from instil.core import Batch
from instil.data.stream_splits import label_count, sample_count
from instil.data.streams import Stream
from instil.engine.cpu_offload import without_offload
from instil.experiment.data_checks import class_problems, validation_notes
from instil.experiment.experiment import Experiment
from instil.experiment.network_inputs import exported_student
from instil.experiment.sample_digest import sample_digest
from instil.experiment.stage_data import has_different_data
from instil.experiment.weighting_advice import weighting_advice
from instil.export.latency import measure
from instil.networks.sklearn_model import SklearnModel
from instil.plan.gains import ArmsByName, gains_over
from instil.plan.label_facts import label_facts
from instil.plan.result_names import baseline_facts, metric_facts
from instil.plan.stage_results import stage_entries
from instil.plan.statistics import summarize
from instil.plan.trained_model import TrainedModel, origins
from instil.recipe.sections import Recipe

MIN_SEEDS = 3
"""Number of seeds below which a run warns about noise."""


def assemble_result(
    experiment: Experiment, teacher: TrainedModel | None, arms: ArmsByName, status: str
) -> dict[str, Any]:
    """Assemble everything that reports and leaderboards read about a run.

    Args:
        experiment: experiment of the whole recipe.
        teacher: the teacher, None if the recipe has none or it is not trained yet.
        arms: finished arms. The latency of each net is measured once and kept in its arm.
        status: ``running``, ``interrupted``, ``failed`` or ``complete``.

    Returns:
        The content of ``result.json``.
    """
    evaluated = {name: of_seeds for name, of_seeds in arms.items() if of_seeds}
    if teacher is not None and teacher.test:
        evaluated = {"teacher": [teacher], **evaluated}
    result = {"status": status, **_experiment_facts(experiment)}
    result |= {name: _metrics_over_seeds(of_seeds) for name, of_seeds in evaluated.items()}
    if teacher is not None and teacher.privacy_cost:
        result["privacy"] = teacher.privacy_cost
    result["headline"] = experiment.task.headline
    result["higher_is_better"] = experiment.task.higher_is_better
    result["secondary"] = list(experiment.task.secondary)
    result["metrics"] = metric_facts(experiment)
    result |= stage_entries(experiment, arms)
    gains = gains_over(experiment, arms, experiment.task.headline)
    if "alone" in gains:
        result["gain"] = gains.pop("alone")
    result["gains"] = gains
    result["arms"] = {name: baseline_facts(name) for name in experiment.recipe.baselines}
    result["reused"] = origins(experiment.recipe.seeds, arms)
    result["cost"] = measure_costs(experiment, teacher, arms)
    exported = arms[experiment.recipe.exported_arm]
    index = exported_seed_index(experiment, exported) if exported else 0
    # In a run that is not complete, an arm may lack the seed of the exported student.
    result["details"] = {
        name: of_seeds[min(index, len(of_seeds) - 1)].details
        for name, of_seeds in evaluated.items()
    }
    result["exported_arm"] = experiment.recipe.exported_arm
    result["exported_seed"] = experiment.recipe.seeds[index] if exported else None
    result["warnings"] = [*result_warnings(result), *_recipe_notes(experiment)]
    return result


def exported_seed_index(experiment: Experiment, students: Sequence[TrainedModel]) -> int:
    """Index of the seed with the best validation metric, whose student is exported."""
    best = max if experiment.task.higher_is_better else min
    headline = experiment.task.headline
    return best(range(len(students)), key=lambda index: students[index].validation[headline])


def measure_costs(
    experiment: Experiment, teacher: TrainedModel | None, arms: ArmsByName
) -> dict[str, dict[str, Any]]:
    """Measure size, latency and training time of the networks.

    Args:
        experiment: experiment of the whole recipe.
        teacher: the teacher, or None.
        arms: finished arms.

    Returns:
        ``teacher`` and ``student`` (the exported one), each with ``parameters``, ``bytes`` (of
        the weights), ``latency`` (of one sample) and ``seconds`` (training time, for a student the
        mean over the seeds). An entry is missing if there is no such net in this process. Another
        arm has an entry only if its net has a different size, as where a scheme exports a part of
        the student.
    """
    costs: dict[str, dict[str, Any]] = {}
    sample = experiment.splits.validation.__getitems__([0])
    if teacher is not None and teacher.cost is not None:
        costs["teacher"] = teacher.cost
    elif teacher is not None and _runs_here(teacher.net):
        costs["teacher"] = _cost([teacher], sample)
    exported = arms.get(experiment.recipe.exported_arm)
    if not exported:
        return costs
    costs["student"] = _cost(exported, sample)
    for name, trained in arms.items():
        if trained and _net_size(trained[0]) != _net_size(exported[0]):
            costs[name] = _cost(trained, sample)
    return costs


def result_warnings(result: Mapping[str, Any]) -> list[str]:
    """List the reasons to doubt the numbers of a result, as sentences without a full stop."""
    warnings = []
    num_seeds = len(result["seeds"])
    if num_seeds < MIN_SEEDS:
        noun = "seed is" if num_seeds == 1 else "seeds are"
        warnings.append(
            f"{num_seeds} {noun} too few to distinguish a gain from noise; use {MIN_SEEDS} or more"
        )
    if "gain" in result and not result["gain"]["significant"] and num_seeds > 1:
        warnings.append("the gain over the student alone is within noise")
    warnings.extend(_baseline_warnings(result["gains"]))
    if _is_teacher_worse(result):
        warnings.append("the teacher is worse than the student alone")
    return warnings


def _experiment_facts(experiment: Experiment) -> dict[str, Any]:
    """Facts about recipe and data that do not depend on any training."""
    recipe = experiment.recipe
    objectives = {
        name: config.model_dump(mode="json") for name, config in recipe.objectives.items()
    }
    return {
        "name": recipe.name,
        "task": recipe.task.name,
        "kind": experiment.splits.kind,
        "classes": list(experiment.splits.classes),
        "shape": list(experiment.shape),
        "data": _data_facts(experiment),
        "labels": label_facts(experiment),
        "scheme": recipe.scheme.type,
        "objectives": objectives,
        "training": _training_facts(recipe),
        "seeds": recipe.seeds,
        "exports": experiment.task.exports,
    }


def _training_facts(recipe: Recipe) -> dict[str, Any]:
    """Rules of the training; of a student that is fitted at once, this fact alone."""
    if exported_student(recipe).is_fitted:
        return {"fitted": True}
    return recipe.train.model_dump(include={"average", "keep", "early_stopping"})


def _data_facts(experiment: Experiment) -> dict[str, Any]:
    if has_different_data(experiment.data_of_stages):
        # The data of the final result are those of the last stage.
        experiment = experiment.stages[-1]
    recipe, splits = experiment.recipe, experiment.splits
    samples = experiment.train_data(recipe.seeds[0])
    surrogate = recipe.data.surrogate
    return {
        "name": recipe.data.name,
        "noun": samples.noun,
        "train": sample_count(samples),
        "labelled": label_count(samples),
        "validation": len(splits.validation),
        "test": len(splits.test),
        "test_digest": sample_digest(splits.test),
        "streamed": isinstance(samples, Stream),
        "surrogate": None if surrogate is None else surrogate.name,
    }


def _metrics_over_seeds(of_seeds: Sequence[TrainedModel]) -> dict[str, Any]:
    return {
        metric: summarize([arm.test[metric] for arm in of_seeds]) for metric in of_seeds[0].test
    }


def _cost(arms: Sequence[TrainedModel], sample: Batch) -> dict[str, Any]:
    """Size and latency of the first seed, and the mean training time of all seeds."""
    first = arms[0]
    # Kept in the arm: a result is assembled after every seed.
    if first.latency is None:
        net = first.net.cpu()
        with without_offload(net):
            first.latency = measure(net, sample, keep_rows=True)
    seconds = sum(arm.seconds for arm in arms) / len(arms)
    return {**_net_size(first), "latency": first.latency, "seconds": seconds}


def _runs_here(net: nn.Module) -> bool:
    """Whether a model has weights here; the size of others and their latency are unknown."""
    has_estimator = any(isinstance(module, SklearnModel) for module in net.modules())
    return has_estimator or any(True for _ in net.parameters())


def _net_size(arm: TrainedModel) -> dict[str, int]:
    tensors = arm.net.state_dict().values()
    return {
        "parameters": sum(parameter.numel() for parameter in arm.net.parameters()),
        "bytes": sum(tensor.numel() * tensor.element_size() for tensor in tensors),
    }


def _recipe_notes(experiment: Experiment) -> list[str]:
    """Warnings about the recipe, without duplicates among the advice of several stages."""
    advice: dict[str, None] = {}
    for stage in experiment.stages:
        advice |= dict.fromkeys(weighting_advice(stage))
        advice |= dict.fromkeys(class_problems(stage, stage.train_data(stage.recipe.seeds[0])))
    notes = [*experiment.notes, *validation_notes(experiment)]
    return [*notes, *experiment.warnings, *advice]


def _baseline_warnings(gains: Mapping[str, Any]) -> Iterator[str]:
    """Warnings about simple baselines that distillation does not clearly beat."""
    for name, gain in gains.items():
        phrase = catalogue.find("baseline", name).phrase()
        if not gain["significant"]:
            yield f"distillation is not clearly better than {phrase} on this data"
        elif gain["mean"] < 0:
            yield f"distillation is clearly worse than {phrase} on this data"


def _is_teacher_worse(result: Mapping[str, Any]) -> bool:
    """Whether the student alone has a better mean headline metric than the teacher."""
    if "teacher" not in result or "alone" not in result:
        return False
    # A teacher without the outputs that the headline metric reads has no value.
    if result["headline"] not in result["teacher"]:
        return False
    teacher, alone = (result[arm][result["headline"]]["mean"] for arm in ("teacher", "alone"))
    best = max if result["higher_is_better"] else min
    return bool(teacher != best(teacher, alone))
