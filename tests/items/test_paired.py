"""Losses of pairs leave out samples whose image and text do not belong together."""

from __future__ import annotations

import pytest
import torch

from instil.core import Batch, Objectives, Outputs
from instil.data.labels import paired
from instil.data.samples import TensorData
from instil.experiment.schemes import samples_for_objectives
from instil.items import Items
from instil.objectives.features.clip_feature import CLIPFeature
from instil.objectives.labels.contrastive import Contrastive, contrastive_loss
from instil.objectives.relations.interactive_contrastive import InteractiveContrastive

IS_PAIR = torch.tensor([True, False, True, True, False])


def outputs(seed: int) -> Outputs:
    generator = torch.Generator().manual_seed(seed)
    return {
        "image_embedding": torch.randn(5, 4, generator=generator, requires_grad=True),
        "text_embedding": torch.randn(5, 4, generator=generator, requires_grad=True),
        "logit_scale": torch.full((1,), 5.0),
    }


def batch() -> Batch:
    return {"image": torch.zeros(5, 1, 2, 2), "label": torch.full((5,), -100), "is_pair": IS_PAIR}


def test_weights() -> None:
    assert torch.equal(Items(paired=True).weights(batch()), IS_PAIR.float())
    assert torch.equal(Items().weights(batch()), torch.ones(5))
    without = {key: value for key, value in batch().items() if key != "is_pair"}
    assert torch.equal(Items(paired=True).weights(without), torch.ones(5))


def test_the_contrastive_loss_is_that_of_the_pairs() -> None:
    student = outputs(0)
    losses = Objectives({"contrastive": Contrastive()})
    loss = losses(student, {}, batch()).losses["contrastive"]
    expected = contrastive_loss(
        student["image_embedding"][IS_PAIR], student["text_embedding"][IS_PAIR], 5.0
    )
    torch.testing.assert_close(loss, expected)
    (gradient,) = torch.autograd.grad(loss, student["image_embedding"])
    assert (gradient.abs().sum(1) > 0).tolist() == IS_PAIR.tolist()
    assert losses.counts(batch())["contrastive"] == 3


def test_a_batch_without_a_pair_has_no_contrastive_loss() -> None:
    student = outputs(0)
    other = batch() | {"is_pair": torch.zeros(5, dtype=torch.bool)}
    loss = Objectives({"contrastive": Contrastive()})(student, {}, other).losses["contrastive"]
    assert loss == 0
    loss.backward()  # type: ignore[no-untyped-call]


def test_other_losses_read_all_images_and_texts() -> None:
    student, teacher = outputs(0), outputs(1)
    objectives = Objectives({"clip": CLIPFeature(), "icl": InteractiveContrastive()})
    objectives.build(student, teacher)
    losses = objectives(student, teacher, batch()).losses
    (gradient,) = torch.autograd.grad(losses["clip"], student["text_embedding"], retain_graph=True)
    assert (gradient.abs().sum(1) > 0).all()
    (gradient,) = torch.autograd.grad(losses["icl"], student["text_embedding"])
    assert (gradient.abs().sum(1) > 0).tolist() == IS_PAIR.tolist()


def test_a_student_that_learns_from_pairs_alone_sees_the_pairs() -> None:
    tensors = {"image": torch.zeros(5, 1, 2, 2), "is_pair": IS_PAIR}
    samples = TensorData(tensors, torch.full((5,), -100), ())
    alone = samples_for_objectives(Objectives({"contrastive": Contrastive()}), samples)
    assert alone.index.tolist() == [0, 2, 3]
    both = Objectives({"contrastive": Contrastive(), "clip": CLIPFeature()})
    assert len(samples_for_objectives(both, samples)) == 5
    none = TensorData(tensors | {"is_pair": torch.zeros(5)}, torch.full((5,), -100), ())
    with pytest.raises(ValueError, match="is_pair: no sample is a pair"):
        paired(none)
