"""``result.json``: the arms over their seeds, what was gained, what it cost, what to beware of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from instil.core import UNLABELLED, Batch
from instil.experiment.experiment import Experiment
from instil.experiment.weighting_advice import weighting_advice
from instil.export.latency import measure
from instil.plan.arms import Arm
from instil.plan.label_facts import label_facts
from instil.plan.statistics import paired_gain, summarize

ArmsByName = Mapping[str, Sequence[Arm]]


BASELINE_PHRASES = {
    "label_smoothing": "label smoothing",
    "pseudo_labels": "the teacher's hard pseudo-labels",
    "noise": "the teacher's answers to white noise",
    "blobs": "the teacher's answers to smooth noise",
}
"""What distillation must beat, in words."""


def assemble_result(
    experiment: Experiment, teacher: Arm | None, arms: ArmsByName, status: str
) -> dict[str, Any]:
    """Everything that reports and leaderboards read of a run, from the arms that are finished."""
    recipe, splits = experiment.recipe, experiment.splits
    samples = experiment.train_data(recipe.seeds[0])
    counted = samples.label != UNLABELLED
    result: dict[str, Any] = {
        "status": status,
        "name": recipe.name,
        "task": recipe.task.name,
        "kind": splits.kind,
        "classes": list(splits.classes),
        "shape": list(experiment.shape),
        "data": {
            "name": recipe.data.name,
            "noun": samples.noun,
            "train": len(samples),
            "labelled": int((counted.flatten(1).any(1) if counted.ndim > 1 else counted).sum()),
            "validation": len(splits.validation),
            "test": len(splits.test),
            "surrogate": recipe.data.surrogate.name if recipe.data.surrogate is not None else None,
        },
        "labels": label_facts(experiment),
        "scheme": recipe.scheme.type,
        "objectives": {
            name: goal.model_dump(mode="json") for name, goal in recipe.objectives.items()
        },
        "seeds": recipe.seeds,
        "exports": experiment.task.exports,
    }
    scored = {"teacher": [teacher]} if teacher is not None and teacher.test else {}
    for name, done in {**scored, **arms}.items():
        if done:
            result[name] = {
                metric: summarize([arm.test[metric] for arm in done]) for metric in done[0].test
            }
    if teacher is not None and teacher.privacy_cost:
        result["privacy"] = teacher.privacy_cost
    headline = result["headline"] = experiment.task.headline
    result["higher_is_better"] = experiment.task.higher_is_better
    result["secondary"] = list(experiment.task.secondary)
    gains = {
        name: paired_gain(
            *_paired(arms["distilled"], done, headline), experiment.task.higher_is_better
        )
        for name, done in arms.items()
        if name != "distilled" and done and arms["distilled"]
    }
    if "alone" in gains:
        result["gain"] = gains.pop("alone")
    result["gains"] = gains
    result["cost"] = measure_costs(experiment, teacher, arms)
    drawn = exported_seed_index(experiment, arms["distilled"]) if arms["distilled"] else 0
    result["details"] = {
        name: done[min(drawn, len(done) - 1)].details
        for name, done in {**scored, **arms}.items()
        if done
    }
    result["exported_seed"] = recipe.seeds[drawn] if arms["distilled"] else None
    advice = [sentence for stage in experiment.stages for sentence in weighting_advice(stage)]
    notes = [*experiment.notes, *experiment.warnings, *dict.fromkeys(advice)]
    result["warnings"] = [*result_warnings(result), *notes]
    return result


def _paired(
    treated: Sequence[Arm], control: Sequence[Arm], metric: str
) -> tuple[list[float], list[float]]:
    pairs = list(zip(treated, control, strict=False))
    return [a.test[metric] for a, _ in pairs], [b.test[metric] for _, b in pairs]


def exported_seed_index(experiment: Experiment, distilled: Sequence[Arm]) -> int:
    """Index of the seed whose student is shipped: the best one on the validation split."""
    best = max if experiment.task.higher_is_better else min
    headline = experiment.task.headline
    return best(range(len(distilled)), key=lambda index: distilled[index].validation[headline])


def measure_costs(experiment: Experiment, teacher: Arm | None, arms: ArmsByName) -> dict[str, Any]:
    """Parameters, bytes of the weights, latency of one sample, and training seconds of each net."""
    arms_of: dict[str, tuple[Arm, float]] = {}
    known = {} if teacher is None or teacher.cost is None else {"teacher": teacher.cost}
    if (
        teacher is not None and not known and any(True for _ in teacher.net.parameters())
    ):  # of one that is elsewhere nothing is known
        arms_of["teacher"] = teacher, teacher.seconds
    if done := arms["distilled"]:
        arms_of["student"] = done[0], sum(arm.seconds for arm in done) / len(done)
    one = experiment.splits.validation.__getitems__([0])
    return known | {
        name: {
            "parameters": sum(parameter.numel() for parameter in arm.net.parameters()),
            "bytes": sum(
                tensor.numel() * tensor.element_size() for tensor in arm.net.state_dict().values()
            ),
            "latency": _latency(arm, one),
            "seconds": seconds,
        }
        for name, (arm, seconds) in arms_of.items()
    }


def _latency(arm: Arm, one: Batch) -> dict[str, Any]:
    """Measured once: results are put together after every seed."""
    if arm.latency is None:
        arm.latency = measure(arm.net.cpu(), one, whole=True)
    return arm.latency


def result_warnings(result: Mapping[str, Any]) -> list[str]:
    """What a reader must know before trusting the numbers."""
    found = []
    seeds = len(result["seeds"])
    if seeds < 3:
        found.append(
            f"{seeds} seed{'s' * (seeds > 1)} cannot tell a gain from noise; use 3 or more"
        )
    if "gain" in result and not result["gain"]["significant"] and seeds > 1:
        found.append("the gain over the student alone is within noise")
    for name, words in BASELINE_PHRASES.items():
        other = result["gains"].get(name)
        if other is not None and other["significant"] and other["mean"] < 0:
            found.append(f"distillation does clearly worse than {words} here")
        elif other is not None and not other["significant"]:
            found.append(f"distillation does not do clearly better than {words} here")
    if "teacher" in result and "alone" in result:
        means = [result[arm][result["headline"]]["mean"] for arm in ("teacher", "alone")]
        best = max if result["higher_is_better"] else min
        if means[0] != best(means):
            found.append("the teacher is worse than the student alone")
    return found
