"""Promptable segmentation: the call, metrics against loops, and SAM of transformers."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from instil.core import Batch, Net
from instil.networks.factory import build
from instil.networks.presets import taps_for
from instil.students.image_encoder import image_encoder
from instil.tasks.bases.prompted_call import prompted_call
from instil.tasks.promptable_segmentation import PromptableSegmentation
from instil.teachers.frozen import Frozen
from tests import prompted


def fixed_net(outputs: dict[str, torch.Tensor]) -> Net:
    return Net(nn.Identity(), lambda _, batch: {k: v[batch["index"]] for k, v in outputs.items()})


def random_outputs(seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "mask_logits": torch.randn(12, 2, 3, 4, 4, generator=generator),
        "iou_scores": torch.rand(12, 2, 3, generator=generator),
    }


def chosen(outputs: dict[str, torch.Tensor], n: int, prompt: int) -> torch.Tensor:
    best = int(outputs["iou_scores"][n, prompt].argmax())
    mask = outputs["mask_logits"][n, prompt, best][None, None]
    return F.interpolate(mask, size=(8, 8), mode="bilinear")[0, 0] > 0


def overlap(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one & other).sum() / (one | other).sum())


def test_metrics_equal_loops_over_objects() -> None:
    batch, outputs, others = prompted.batch(), random_outputs(0), random_outputs(1)
    teacher = Frozen(fixed_net(others))
    metrics, _ = PromptableSegmentation().evaluate(fixed_net(outputs), [batch], teacher)
    ious: list[list[float]] = [[], []]
    agreement, right = [], []
    for n in range(12):
        valid = batch["label"][n] != -100
        if not valid.any():
            continue
        target = (batch["label"][n] == 1)[valid]
        for prompt in range(2):
            mask = chosen(outputs, n, prompt)[valid]
            ious[prompt].append(overlap(mask, target))
            agreement.append(overlap(mask, chosen(others, n, prompt)[valid]))
            right.append(float((mask == target).float().mean()))
    assert metrics["box_iou"] == pytest.approx(sum(ious[0]) / len(ious[0]), rel=1e-6)
    assert metrics["point_iou"] == pytest.approx(sum(ious[1]) / len(ious[1]), rel=1e-6)
    assert metrics["miou"] == pytest.approx((metrics["box_iou"] + metrics["point_iou"]) / 2)
    assert metrics["agreement"] == pytest.approx(sum(agreement) / len(agreement), rel=1e-6)
    assert metrics["accuracy"] == pytest.approx(sum(right) / len(right), rel=1e-6)


def test_data_of_other_tasks_and_unlabelled_data_raise() -> None:
    task, batch = PromptableSegmentation(), prompted.batch()
    with pytest.raises(ValueError, match=r"needs a prompt\. Expected 'box' \(N, 4\)"):
        task.check_data({key: batch[key] for key in ("image", "label", "index")})
    with pytest.raises(ValueError, match="needs 'point_labels'"):
        task.check_data({key: batch[key] for key in ("image", "label", "points")})
    with pytest.raises(ValueError, match=r"one mask per prompt.*got \(12,\)"):
        task.check_data(batch | {"label": torch.zeros(12)})
    unlabelled = batch | {"label": torch.full((12, 8, 8), -100)}
    with pytest.raises(ValueError, match="no object to evaluate on has a label"):
        task.evaluate(fixed_net(random_outputs(0)), [unlabelled])
    with pytest.raises(ValueError, match="Linear has no vision_encoder"):
        task.check_model(nn.Linear(1, 1), {})
    broken = random_outputs(0) | {"mask_logits": torch.full((12, 2, 3, 4, 4), torch.nan)}
    with pytest.raises(ValueError, match="mask logits are not finite"):
        task.evaluate(fixed_net(broken), [batch])


def test_the_mask_decoder_runs_only_for_its_roles() -> None:
    model, batch = prompted.PromptNet(), prompted.batch()
    calls: list[int] = []
    model.register_forward_hook(lambda *_: calls.append(1))
    outputs = prompted_call(model, batch, roles={"dense_embedding"})
    assert set(outputs) == {"dense_embedding"}
    assert not calls
    whole = prompted_call(model, batch)
    assert len(calls) == 2
    # From the embedding, the image encoder is not run again.
    del model.vision_encoder
    again = prompted_call(model, batch | {"dense_embedding": outputs["dense_embedding"]})
    assert torch.equal(again["mask_logits"], whole["mask_logits"])


def sam() -> Any:
    pytest.importorskip("transformers")
    torch.manual_seed(0)
    options = {"config": prompted.sam_config()}
    return build("transformers:AutoModelForMaskGeneration", options).eval()


def prompt_only(batch: Batch, *keys: str) -> Batch:
    return {key: batch[key] for key in ("image", "label", "index", *keys)}


def test_masks_of_sam_are_those_of_its_own_forward_and_a_smaller_encoder_fits() -> None:
    model, batch = sam(), prompted.batch()
    pixels = F.interpolate(batch["image"], (16, 16), mode="bilinear", antialias=True)
    outputs = Net(model, prompted_call, taps_for(model))(batch)
    with torch.no_grad():
        # The image has twice the size: pixel x of the data has its centre at 2 x + 0.5.
        box = model(pixel_values=pixels, input_boxes=(2 * batch["box"] + 0.5)[:, None])
        points = model(
            pixel_values=pixels,
            input_points=(2 * batch["points"] + 0.5)[:, None],
            input_labels=batch["point_labels"][:, None],
        )
    torch.testing.assert_close(outputs["mask_logits"][:, :1], box.pred_masks)
    torch.testing.assert_close(outputs["mask_logits"][:, 1:], points.pred_masks)
    torch.testing.assert_close(outputs["iou_scores"][:, 1:], points.iou_scores)
    torch.testing.assert_close(outputs["features"][0], outputs["dense_embedding"])
    # Random positions have the scale of the authors, whatever the width of the encoder.
    assert 0.3 < float(model.shared_image_embedding.positional_embedding.detach().std()) < 3
    state = {
        name: value.clone()
        for name, value in model.state_dict().items()
        if "vision_encoder" not in name
    }
    student = image_encoder(copy.deepcopy(model), width=4, stages=2, size=8)
    small = Net(student, prompted_call, taps_for(student)).eval()(batch)
    assert small["dense_embedding"].shape == outputs["dense_embedding"].shape
    assert small["mask_logits"].shape == outputs["mask_logits"].shape
    assert all(torch.equal(student.state_dict()[name], value) for name, value in state.items())
    sizes = [sum(p.numel() for p in m.vision_encoder.parameters()) for m in (student, model)]
    assert sizes[0] != sizes[1]
    with pytest.raises(ValueError, match="PromptNet has no vision_encoder"):
        image_encoder(prompted.PromptNet(), width=4)
