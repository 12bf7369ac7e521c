"""The partner of a sample depends on seed, sample and view, not on its batch."""

from __future__ import annotations

import pytest
import torch

from instil import recipe
from instil.data.augmentation import Augmentation
from instil.data.partners import Partners
from instil.data.sources import digits
from instil.recipe import RecipeError


def test_a_partner_does_not_depend_on_the_cut_of_the_batch() -> None:
    data = digits.digits().train
    partners = Partners(data, Augmentation(2, False, 0), seed=1)
    rows = torch.arange(40)
    whole = partners(data.__getitems__(rows))
    parts = [partners(data.__getitems__(part)) for part in rows.split([7, 1, 32])]
    for key in ("image", "partner_image", "partner_label"):
        assert torch.equal(whole[key], torch.cat([part[key] for part in parts]))
    assert torch.equal(whole["label"], data.label[:40])


def test_a_partner_changes_with_view_and_seed_and_has_its_own_label() -> None:
    samples = digits.digits().train
    batch = samples.__getitems__(torch.arange(200))
    first = Partners(samples)(batch)
    images = samples.images(torch.arange(len(samples)))
    partners = [
        int((images == image).flatten(1).all(1).nonzero()[0]) for image in first["partner_image"]
    ]
    assert torch.equal(samples.label[partners], first["partner_label"])
    assert len(set(partners)) > 150
    for other in (
        Partners(samples, seed=1)(batch),
        Partners(samples)(batch | {"view": batch["view"] + 1}),
    ):
        same = (other["partner_image"] == first["partner_image"]).flatten(1).all(1)
        assert same.float().mean() < 0.05


def test_mixtures_have_no_partner() -> None:
    settings = {
        "name": "it",
        "data": {"name": "digits", "augment": {"mixup": True, "partner": True}},
        "student": "cnn",
        "objectives": {"kd": {}},
    }
    with pytest.raises(RecipeError, match="partner: mixtures of mixtures"):
        recipe.build(settings)
