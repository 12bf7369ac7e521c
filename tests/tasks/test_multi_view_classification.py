"""Classification from several views: any image classifier, networks of views, wrong inputs."""

from __future__ import annotations

import pytest
import torch

from instil.core import Net
from instil.networks.cnn import cnn
from instil.networks.mvcnn import MVCNN, mvcnn
from instil.networks.presets import taps_for
from instil.tasks.multi_view_classification import MultiViewClassification, call
from tests.tasks.samples import several_views


def test_an_image_classifier_predicts_the_mean_of_its_views() -> None:
    model = cnn(4, width=4).eval()
    batch = several_views()
    outputs = call(model, batch)
    per_view = torch.stack([model(batch["views"][:, view]) for view in range(3)], 1)
    torch.testing.assert_close(outputs["view_logits"], per_view)
    torch.testing.assert_close(outputs["logits"], per_view.mean(1))


def test_an_image_is_one_view() -> None:
    model = cnn(4, width=4).eval()
    image = several_views()["views"][:, 0]
    torch.testing.assert_close(call(model, {"views": image})["logits"], model(image))


@pytest.mark.parametrize("pool", ["max", "mean"])
def test_a_network_of_views_pools_their_embeddings(pool: str) -> None:
    model = mvcnn(4, width=4, pool=pool).eval()
    assert isinstance(model, MVCNN)
    views = several_views()["views"]
    outputs = Net(model, call, taps_for(model))({"views": views})
    maps = [model.encoder(views[:, view]).mean((2, 3)) for view in range(3)]
    stacked = torch.stack(maps)
    pooled = stacked.amax(0) if pool == "max" else stacked.mean(0)
    torch.testing.assert_close(outputs["embedding"], pooled)
    torch.testing.assert_close(outputs["logits"], model.head(pooled))
    torch.testing.assert_close(outputs["view_logits"][:, 1], model.head(maps[1]))
    torch.testing.assert_close(outputs["view_embedding"], stacked.movedim(0, 1))


def test_number_of_parameters_is_that_of_the_docstring() -> None:
    count = sum(parameter.numel() for parameter in mvcnn(10).parameters())
    assert f"{count:,} parameters" in (mvcnn.__doc__ or "")


def test_the_size_of_the_model_is_that_of_each_view() -> None:
    outputs = call(cnn(4, width=4).eval(), several_views(), size=8, mean=[0.5], std=[0.2])
    assert outputs["view_logits"].shape == (12, 3, 4)


def test_views_of_8_bits_are_scaled() -> None:
    views = torch.full((1, 3, 1, 4, 4), 51, dtype=torch.uint8)
    batch = MultiViewClassification().to_batch(views, (3, 1, 4, 4))
    torch.testing.assert_close(batch["views"], torch.full((1, 3, 1, 4, 4), 0.2))


def test_wrong_inputs_raise() -> None:
    task = MultiViewClassification()
    with pytest.raises(ValueError, match=r"views: wrong form.*\(12, 1, 4, 4\)"):
        task.check_data(several_views() | {"views": several_views()["views"][:, 0]})
    with pytest.raises(ValueError, match=r"views: wrong form.*\(12, 0, 1, 4, 4\)"):
        task.check_data(several_views() | {"views": several_views()["views"][:, :0]})
    with pytest.raises(ValueError, match="views: NaN or infinite values"):
        task.check_data(several_views() | {"views": several_views()["views"] / 0})
    with pytest.raises(ValueError, match=r"views: wrong shape\. Expected \(N, 3, 1, 4, 4\)"):
        task.to_batch(torch.rand(2, 4, 1, 4, 4), (3, 1, 4, 4))
    for views in (255 * torch.rand(2, 3, 1, 4, 4), torch.zeros(2, 3, 1, 4, 4, dtype=torch.int64)):
        with pytest.raises(ValueError, match=r"views must be uint8, or floating point in \[0, 1\]"):
            task.to_batch(views, (3, 1, 4, 4))
    with pytest.raises(ValueError, match=r"mvcnn\.pool: unknown value"):
        mvcnn(4, pool="sum")
