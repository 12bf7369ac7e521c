"""A network that learns from attacked images only."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from instil.objectives.labels.cross_entropy import CrossEntropy
from instil.schemes.robust.adversarial_training import AdversarialTraining
from instil.testing import check_scheme
from tests import nets
from tests.experiment.small import recipe, run_of
from tests.schemes.image_nets import images, net, timed


def make(**options: float) -> AdversarialTraining:
    scheme = AdversarialTraining(
        net(2),
        {"cross_entropy": CrossEntropy(average="labelled")},
        **{"epsilon": 0.2, "step_size": 0.05, "attack_steps": 3} | options,
    )
    scheme.prepare(images())
    return scheme


def test_contracts() -> None:
    check_scheme(make, images)


def test_the_loss_is_that_of_attacked_images_and_the_attack_raises_it() -> None:
    scheme, batch = make(), timed()
    prepared_batch = scheme.before_step(batch)
    assert float((prepared_batch["attacked"] - batch["image"]).abs().max()) <= 0.2 + 1e-6
    (update,) = scheme.step(prepared_batch)
    logits = scheme.student(batch | {"image": prepared_batch["attacked"]})["logits"]
    assert set(update.losses) == {"cross_entropy"}
    assert torch.allclose(
        update.losses["cross_entropy"], F.cross_entropy(logits, batch["label"], ignore_index=-100)
    )
    labelled = batch["label"] >= 0
    plain = F.cross_entropy(
        scheme.student(batch)["logits"], batch["label"], reduction="none", ignore_index=-100
    )
    attacked = F.cross_entropy(logits, batch["label"], reduction="none", ignore_index=-100)
    assert bool((attacked >= plain)[labelled].all())


def test_an_image_without_a_label_is_attacked_at_the_nets_own_class() -> None:
    scheme, batch = make(), timed()
    unlabelled = batch | {"label": torch.full_like(batch["label"], -100)}
    own = batch | {"label": scheme.student(batch)["logits"].argmax(1)}
    assert torch.equal(
        scheme.before_step(unlabelled)["attacked"], scheme.before_step(own)["attacked"]
    )


def test_batches_and_nets_that_cannot_be_attacked() -> None:
    with pytest.raises(ValueError, match="AdversarialTraining attacks images"):
        AdversarialTraining(nets.net(4), {"cross_entropy": CrossEntropy()}).prepare(
            {"x": torch.rand(16, 5), "label": torch.zeros(16).long()}
        )
    with pytest.raises(ValueError, match=r"needs \(N, C\) with two classes or more"):
        AdversarialTraining(net(2, classes=1), {"cross_entropy": CrossEntropy()}).prepare(images())
    with pytest.raises(ValueError, match="AdversarialTraining needs one class index per image"):
        AdversarialTraining(net(2), {"cross_entropy": CrossEntropy()}).prepare(
            images() | {"label": torch.rand(16, 5)}
        )


def test_a_teacher_trained_by_the_scheme_has_its_own_cache_entry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INSTIL_CACHE", str(tmp_path / "cache"))
    options = "{type: adversarial_training, epsilon: 0.3, step_size: 0.1, attack_steps: 2}"
    scheme = {"type": "rslad", "epsilon": 0.3, "step_size": 0.1, "attack_steps": 1}
    changes = (
        "seeds=[0]",
        "baselines=[]",
        "teacher_train.epochs=30",
        "teacher.options.width=8",
        "train.epochs=1",
    )
    plain = run_of(recipe(*changes, scheme=scheme), tmp_path / "plain")
    robust = run_of(
        recipe(*changes, f"teacher.scheme={options}", scheme=scheme), tmp_path / "robust"
    )
    assert robust["teacher"]["pgd"]["mean"] > plain["teacher"]["pgd"]["mean"]
    several = recipe(*changes, f"teacher=[cnn, {{model: cnn, scheme: {options}}}]", scheme=scheme)
    assert [spec.scheme.type for spec in several.teachers] == ["offline", "adversarial_training"]
    assert several.teachers[1].scheme.options["attack_steps"] == 2


def test_errors_in_a_teachers_scheme_have_its_recipe_path() -> None:
    with pytest.raises(ValueError, match=r"teacher\.scheme\.epsilno: .*epsilon"):
        recipe("teacher.scheme={type: adversarial_training, epsilno: 0.1}")
    with pytest.raises(ValueError, match=r"teacher\.1\.scheme: No scheme named 'nothing'"):
        recipe("teacher=[cnn, {model: cnn, scheme: nothing}]")
    with pytest.raises(ValueError, match=r"student\.scheme: "):
        recipe("student.scheme=offline")
