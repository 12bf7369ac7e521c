"""Class weights of label losses: values, divisors, splits of a batch, counted labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from instil.core import Objective, Objectives
from instil.engine import Optimization
from instil.experiment.label_counts import set_label_counts
from instil.objectives.labels.cross_entropy import CrossEntropy
from instil.objectives.labels.label_smoothing import LabelSmoothing
from instil.recipe.errors import RecipeError
from instil.schemes.offline.offline import Offline
from instil.training.fit import Training, fit
from tests.experiment.small import lines, recipe, run_of
from tests.nets import net

WEIGHTS = [0.5, 1.0, 2.0, 4.0, 8.0]
KINDS: list[type[Any]] = [CrossEntropy, LabelSmoothing]


def logits_and_labels(num_items: int = 12) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(num_items, 5, generator=generator)
    return logits, torch.randint(0, 5, (num_items,), generator=generator)


def loss_of(objective: Objective, logits: Tensor, label: Tensor, **batch: Tensor) -> Tensor:
    objectives = Objectives({"loss": objective})
    objectives.build({"logits": logits}, {})
    update = objectives({"logits": logits}, {}, {"x": logits, "label": label, **batch})
    return update.losses["loss"]


@pytest.mark.parametrize("average", ["batch", "labelled"])
@pytest.mark.parametrize("kind", KINDS)
def test_weighted_mean_is_that_of_torch(kind: type[Any], average: str) -> None:
    logits, label = logits_and_labels()
    weight = torch.tensor(WEIGHTS)
    expected = F.cross_entropy(logits, label, weight)
    if kind is LabelSmoothing:
        # torch weights the smoothed classes, not the item; the items are weighted here.
        values = F.cross_entropy(logits, label, label_smoothing=0.1, reduction="none")
        expected = (values * weight[label]).sum() / weight[label].sum()
    objective = kind(average=average, class_weights=WEIGHTS)
    torch.testing.assert_close(loss_of(objective, logits, label), expected)


@pytest.mark.parametrize(("average", "num_unlabelled"), [("batch", 3), ("labelled", 0)])
def test_unlabelled_items_have_weight_one_in_the_divisor(average: Any, num_unlabelled: int) -> None:
    logits, label = logits_and_labels()
    weight = torch.tensor(WEIGHTS)[label]
    values = F.cross_entropy(logits, label, reduction="none")
    label[:3] = -100
    expected = (values * weight)[3:].sum() / (weight[3:].sum() + num_unlabelled)
    objective = CrossEntropy(average, WEIGHTS)
    torch.testing.assert_close(loss_of(objective, logits, label), expected)


def test_invalid_items_do_not_count() -> None:
    logits, label = logits_and_labels()
    valid = torch.ones(12, dtype=torch.bool)
    valid[:4] = False
    expected = F.cross_entropy(logits[4:], label[4:], torch.tensor(WEIGHTS))
    logits[:4] = float("nan")
    loss = loss_of(CrossEntropy("batch", WEIGHTS), logits, label, valid=valid)
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize("average", ["batch", "labelled"])
@pytest.mark.parametrize("sizes", [[12], [1, 11], [3, 4, 5], [1] * 12])
def test_result_does_not_depend_on_the_split_of_the_batch(sizes: list[int], average: str) -> None:
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(12, 6, generator=generator)
    _, label = logits_and_labels()
    label[5] = -100
    weights: list[Tensor] = []
    for split in (sizes, [12]):
        objective = CrossEntropy(average, WEIGHTS)  # type: ignore[arg-type]
        scheme = Offline(net(4), None, {"loss": objective})
        rows = zip(x.split(split), label.split(split), strict=True)
        loader = [{"x": inputs, "label": labels} for inputs, labels in rows]
        optimizer = Optimization("sgd", {"lr": 1.0})
        options = Training(
            steps=1, accumulate=len(split), device="cpu", optimizer=optimizer, schedule="constant"
        )
        fit(scheme, loader, options)
        weights.append(scheme.student.model.stem.weight)
    torch.testing.assert_close(weights[0], weights[1])


def test_balanced_weights_are_those_of_scikit_learn() -> None:
    objective = CrossEntropy(class_weights="balanced")
    objective.set_label_counts(torch.tensor([6, 3, 0, 1]))
    # n_samples / (n_classes * count), with the three classes that occur; the absent one has 1.
    expected = torch.tensor([10 / 18, 10 / 9, 1.0, 10 / 3])
    torch.testing.assert_close(objective.class_weight, expected)
    logits = torch.randn(4, 4)
    label = torch.tensor([0, 1, 3, 3])
    loss = loss_of(objective, logits, label)
    torch.testing.assert_close(loss, F.cross_entropy(logits, label, expected))


def test_one_weight_for_all_is_the_loss_without_weights() -> None:
    logits, label = logits_and_labels()
    loss = loss_of(CrossEntropy(class_weights=[3.0] * 5), logits, label)
    torch.testing.assert_close(loss, loss_of(CrossEntropy(), logits, label))


@pytest.mark.parametrize("shape", [(12,), (12, 1)])
def test_weights_of_no_and_yes(shape: tuple[int, ...]) -> None:
    logits = torch.randn(12, 1, generator=torch.Generator().manual_seed(4))
    label = torch.tensor([0, 1, 1] * 4)
    values = F.binary_cross_entropy_with_logits(logits[:, 0], label.float(), reduction="none")
    weight = torch.tensor([3.0, 1.0])[label]
    target = label.view(shape) if len(shape) == 1 else label.view(shape).float()
    loss = loss_of(CrossEntropy(class_weights=[3.0, 1.0]), logits, target)
    torch.testing.assert_close(loss, (values * weight).sum() / weight.sum())


def test_positions_of_a_mask_are_items() -> None:
    logits = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(5))
    label = torch.randint(0, 5, (2, 3, 4), generator=torch.Generator().manual_seed(6))
    valid = torch.ones(2, 3, 4)
    loss = loss_of(CrossEntropy(class_weights=WEIGHTS), logits, label, valid=valid)
    expected = F.cross_entropy(logits.flatten(0, 2), label.flatten(), torch.tensor(WEIGHTS))
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize("weights", [[], [0.0, 0.0], [1.0, -1.0], [1.0, float("nan")], "equal"])
def test_wrong_weights(weights: Any) -> None:
    with pytest.raises(ValueError, match=r"class_weights: .*Expected"):
        CrossEntropy(class_weights=weights)


def test_weights_for_another_number_of_classes() -> None:
    logits, label = logits_and_labels()
    with pytest.raises(ValueError, match=r"objectives\.loss: class_weights: 3 weights.*5 classes"):
        loss_of(CrossEntropy(class_weights=[1.0, 2.0, 3.0]), logits, label)


def test_several_classes_per_item_are_refused() -> None:
    logits, _ = logits_and_labels()
    with pytest.raises(ValueError, match="class_weights: the items need one class index each"):
        loss_of(CrossEntropy(class_weights=WEIGHTS), logits, torch.zeros(12, 5))


def test_balanced_without_counted_labels_is_refused() -> None:
    logits, label = logits_and_labels()
    with pytest.raises(ValueError, match="class_weights: the training labels were not counted"):
        loss_of(CrossEntropy(class_weights="balanced"), logits, label)


class Samples:
    """Samples of four classes; the student sees some of the labels."""

    classes = tuple("abcd")
    kind = "single"

    def __init__(self, label: list[int]) -> None:
        self.label = torch.tensor(label)


def test_labels_that_the_student_sees_are_counted() -> None:
    objective = LabelSmoothing(class_weights="balanced")
    scheme = Offline(net(4), None, {"loss": objective, "plain": CrossEntropy()})
    set_label_counts(scheme, Samples([0, 0, 0, 1, -100, -100]))  # type: ignore[arg-type]
    expected = torch.tensor([4 / 6, 2.0, 1.0, 1.0])
    torch.testing.assert_close(objective.class_weight, expected)
    assert "objectives.loss.class_weight" not in scheme.state_dict()
    with pytest.raises(RecipeError, match=r"objectives\.loss\.class_weights: balanced needs train"):
        set_label_counts(scheme, Samples([-100, -100]))  # type: ignore[arg-type]


@pytest.mark.parametrize("weights", ["balanced", "[1, 1, 1, 1, 1, 1, 1, 1, 1, 5]"])
def test_a_recipe_with_class_weights(weights: str, tmp_path: Path) -> None:
    """The students see ten labels of each class, so that balanced weights are 1 for them."""
    changes = (
        "seeds=[0]",
        "baselines=[alone]",
        f"objectives.cross_entropy.class_weights={weights}",
    )
    run_of(recipe(*changes), tmp_path / "weighted")
    run_of(recipe(*changes[:2]), tmp_path / "plain")
    losses: list[dict[str, float]] = []
    for name in ("weighted", "plain"):
        own = {}
        for record in lines(tmp_path / name):
            own[record["arm"]] = record["losses"]["student/cross_entropy"]
        losses.append(own)
    differs = {arm: loss != losses[1][arm] for arm, loss in losses[0].items()}
    for_students = weights != "balanced"
    assert differs["teacher"]
    assert differs["alone"] == for_students
