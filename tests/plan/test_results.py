"""Warnings of a result, and the result of an incomplete run."""

from __future__ import annotations

from typing import Any

import pytest

from instil.experiment.experiment import Experiment
from instil.experiment.networks import build_network
from instil.plan import results
from instil.plan.trained_model import TrainedModel
from tests.experiment.small import recipe

EXPERIMENT = Experiment.from_recipe(recipe("seeds=[0,1,2]"))


def arm(accuracy: float, validation: float = 0.5) -> TrainedModel:
    net = build_network(EXPERIMENT.recipe.student, EXPERIMENT, "student")
    return TrainedModel(
        net, {"accuracy": accuracy}, {"accuracy": validation}, {"confusion": [[accuracy]]}, 2.0
    )


def assemble(
    status: str = "complete", teacher: TrainedModel | None = None, **values: list[float]
) -> dict[str, Any]:
    arms = {
        name: [arm(value) for value in values.get(name, [])]
        for name in ("alone", "label_smoothing", "pseudo_labels", "distilled")
    }
    return results.assemble_result(EXPERIMENT, teacher, arms, status)


def test_a_clear_gain_has_no_warning() -> None:
    result = assemble(teacher=arm(0.95), alone=[0.5, 0.52, 0.51], distilled=[0.7, 0.71, 0.72])
    assert result["warnings"] == []
    assert result["gain"]["significant"] is True
    assert result["gain"]["mean"] == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("values", "warning"),
    [
        (
            {"alone": [0.5, 0.6, 0.7], "distilled": [0.7, 0.5, 0.6]},
            "the gain over the student alone is within noise",
        ),
        (
            {"label_smoothing": [0.7, 0.71, 0.72], "distilled": [0.7, 0.71, 0.71]},
            "distillation is not clearly better than label smoothing on this data",
        ),
        (
            {"pseudo_labels": [0.8, 0.81, 0.83], "distilled": [0.7, 0.71, 0.72]},
            "distillation is clearly worse than the teacher's hard pseudo-labels on this data",
        ),
        (
            {"teacher": [0.3], "alone": [0.5, 0.5, 0.5], "distilled": [0.7, 0.71, 0.72]},
            "the teacher is worse than the student alone",
        ),
    ],
)
def test_warnings(values: dict[str, list[float]], warning: str) -> None:
    teacher = arm(values.pop("teacher")[0]) if "teacher" in values else None
    assert warning in assemble(teacher=teacher, **values)["warnings"]


def test_a_stopped_run_compares_only_seeds_that_both_arms_have() -> None:
    result = assemble("interrupted", alone=[0.5, 0.9], label_smoothing=[0.6], distilled=[0.7])
    assert result["gain"]["mean"] == pytest.approx(0.2)
    assert result["gain"]["std"] is None
    assert result["alone"]["accuracy"]["values"] == [0.5, 0.9]
    assert "pseudo_labels" not in result


def test_a_run_without_finished_arms_has_no_metrics() -> None:
    result = assemble("failed")
    assert not {"gain", "teacher", "alone", "distilled"} & set(result)
    assert (result["cost"], result["details"], result["exported_seed"]) == ({}, {}, None)


def test_the_exported_student_is_chosen_on_the_validation_split() -> None:
    done = [arm(0.9, validation=0.1), arm(0.2, validation=0.8), arm(0.5, validation=0.3)]
    assert results.exported_seed_index(EXPERIMENT, done) == 1
    result = results.assemble_result(EXPERIMENT, None, {"distilled": done}, "complete")
    assert result["exported_seed"] == 1
    assert result["details"]["distilled"] == {"confusion": [[0.2]]}


def test_training_seconds_are_the_mean_over_the_seeds() -> None:
    done = [arm(0.5), arm(0.5)]
    done[1].seconds = 4.0
    cost = results.assemble_result(EXPERIMENT, None, {"distilled": done}, "complete")["cost"][
        "student"
    ]
    assert cost["seconds"] == 3.0
    assert cost["latency"]["batch_size"] == 1


def test_the_latency_of_each_net_is_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A result is assembled after every seed."""
    measured = []
    monkeypatch.setattr(
        results, "measure", lambda net, *_, **__: measured.append(net) or {"median_ms": 1.0}
    )
    teacher, arms = arm(0.9), {"alone": [arm(0.5)], "distilled": [arm(0.7)]}
    for _ in range(2):
        result = results.assemble_result(EXPERIMENT, teacher, arms, "running")
        arms["distilled"].append(arm(0.7))
    assert measured == [teacher.net, arms["distilled"][0].net]
    assert result["cost"]["student"]["latency"] == {"median_ms": 1.0}


def test_an_arm_of_another_size_has_its_own_cost() -> None:
    """A scheme may export a part of the student, while the student alone remains whole."""
    arms = {name: [arm(0.5), arm(0.5)] for name in ("alone", "label_smoothing", "distilled")}
    narrow = EXPERIMENT.recipe.student.model_copy(update={"options": {"width": 2}})
    for name in ("label_smoothing", "distilled"):
        for trained in arms[name]:
            trained.net = build_network(narrow, EXPERIMENT, "student")
    arms["alone"][1].seconds = 4.0
    cost = results.measure_costs(EXPERIMENT, None, arms)
    assert set(cost) == {"student", "alone"}, "label smoothing has the size of the student"
    assert cost["student"]["parameters"] == 64 * 2 + 2 + 2 * 10 + 10
    assert cost["alone"]["parameters"] == 64 * 4 + 4 + 4 * 10 + 10
    assert cost["alone"]["bytes"] == 4 * cost["alone"]["parameters"]
    assert cost["alone"]["seconds"] == 3.0
    assert cost["alone"]["latency"]["median_ms"] > 0
