"""Depth: the call; metrics compared with loops; networks and data."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from instil.core import Net
from instil.data.sources.npz import npz
from instil.data.sources.shape_depths import shape_depths
from instil.networks import factory
from instil.objectives.logits.kd import KD
from instil.objectives.logits.logit_mse import LogitMSE
from instil.tasks.depth import Depth, call
from instil.teachers.frozen import Frozen
from tests.experiment.small import recipe, run_of
from tests.tasks.samples import depths

FACTS = {"classes": 1, "channels": 3, "size": 32}
DPT = {
    "model_type": "dpt",
    "backbone_out_indices": [0, 1, 2, 3],
    "hidden_size": 16,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "patch_size": 8,
    "neck_hidden_sizes": [8, 8, 8, 8],
    "fusion_hidden_size": 8,
    "reassemble_factors": [4, 2, 1, 0.5],
}
DEPTH_ANYTHING = {
    "model_type": "depth_anything",
    "backbone_config": {
        "model_type": "dinov2",
        "hidden_size": 16,
        "num_hidden_layers": 4,
        "num_attention_heads": 2,
        "patch_size": 8,
        "image_size": 32,
        "out_indices": [1, 2, 3, 4],
        "reshape_hidden_states": False,
    },
    "patch_size": 8,
    "reassemble_hidden_size": 16,
    "neck_hidden_sizes": [8, 8, 8, 8],
    "fusion_hidden_size": 8,
    "head_hidden_size": 8,
}


def fixed_net(depth: Tensor) -> Net:
    return Net(nn.Identity(), lambda _, batch: {"logits": depth[batch["index"]][..., None]})


def test_metrics_equal_loops_over_the_pixels() -> None:
    batch = depths() | {"index": torch.arange(12)}
    generator = torch.Generator().manual_seed(1)
    depth, other = (0.5 + 3 * torch.rand(12, 4, 4, generator=generator) for _ in range(2))
    batch["label"][2] = -100
    metrics, _ = Depth().evaluate(fixed_net(depth), [batch], Frozen(fixed_net(other)))
    rows = []
    for image in range(12):
        pairs = []
        for row in range(4):
            for column in range(4):
                target = float(batch["label"][image, row, column])
                if target > 0 and batch["valid"][image, row, column]:
                    pairs.append((float(depth[image, row, column]), target))
        if pairs:
            right = sum(max(a / b, b / a) < 1.25 for a, b in pairs) / len(pairs)
            relative = sum(abs(a - b) / b for a, b in pairs) / len(pairs)
            rmse = math.sqrt(sum((a - b) ** 2 for a, b in pairs) / len(pairs))
            rows.append((right, relative, rmse))
    assert len(rows) == 11
    expected = [sum(column) / 11 for column in zip(*rows, strict=True)]
    names = ("delta1", "abs_rel", "rmse")
    assert [metrics[name] for name in names] == pytest.approx(expected, rel=1e-5)
    assert 0 <= metrics["agreement"] < 1


def test_data_without_depths_and_infinite_outputs_raise() -> None:
    batch = depths() | {"index": torch.arange(12)}
    depth = torch.ones(12, 4, 4)
    depth[3, 1, 1] = torch.inf
    unknown = batch | {"label": torch.full((12, 4, 4), -100.0)}
    with pytest.raises(ValueError, match="1 of 192 pixels have depths that are not finite"):
        Depth().evaluate(fixed_net(depth), [batch])
    with pytest.raises(ValueError, match="no pixel to evaluate on has a label"):
        Depth().evaluate(fixed_net(torch.ones(12, 4, 4)), [unknown])
    with pytest.raises(ValueError, match=r"needs real labels \(N, H, W\); these are torch.int64"):
        Depth().check_data(batch | {"label": batch["label"].long()})


def test_losses_of_classes_are_undefined() -> None:
    Depth().check({"logit_mse": LogitMSE()})
    with pytest.raises(ValueError, match=r"objectives\.kd: KD is undefined for real-valued depth"):
        Depth().check({"kd": KD()})


def test_pseudo_labels_fill_unlabelled_pixels_only() -> None:
    label = torch.tensor([[[2.0, -100.0]]])
    decisions = Depth().decisions({"logits": torch.tensor([[[[1.0], [3.0]]]])})
    assert Depth().pseudo_labels(decisions, label).tolist() == [[[2.0, 3.0]]]


@pytest.mark.parametrize("config", [DPT, DEPTH_ANYTHING], ids=["dpt", "depth_anything"])
def test_models_of_transformers(config: dict[str, Any]) -> None:
    pytest.importorskip("transformers")
    model = factory.build(
        "transformers:AutoModelForDepthEstimation", {"config": config}, **FACTS
    ).eval()
    depth = call(model, {"image": torch.rand(2, 3, 32, 32)})["logits"]
    assert depth.shape == (2, 32, 32, 1)
    assert depth.isfinite().all()


def test_depths_of_an_archive(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    image = generator.random((20, 6, 8), dtype=np.float32)
    depth = generator.random((20, 6, 8), dtype=np.float32) + 1
    depth[:, 0] = 0
    depth[:, 1] = np.nan
    np.savez(tmp_path / "a.npz", image=image, label=depth)
    data = npz(str(tmp_path / "a.npz"), task_name="depth")
    assert (data.train.kind, data.train.classes) == ("real", ("depth",))
    batch = data.train.__getitems__([0, 1])
    assert (batch["label"][:, :2] == -100).all()
    assert (batch["label"][:, 2:] >= 1).all()
    assert batch["valid"].all()
    np.savez(tmp_path / "b.npz", image=image, label=np.zeros((20, 6, 8), int))
    with pytest.raises(ValueError, match=r"depth needs floating-point distances \(N, H, W\)"):
        npz(str(tmp_path / "b.npz"), task_name="depth")


def test_nearer_discs_cover_others() -> None:
    data = shape_depths(30).train
    batch = data.__getitems__(range(30))
    is_known = batch["label"] > 0
    assert not is_known[:, -1].any()
    assert is_known[:, :-1].all()
    assert float(batch["label"][is_known].min()) >= 1.0
    assert float(batch["label"].max()) <= 4.0
    # The image shows the inverse of the depth, with noise.
    difference = batch["image"][:, 0][is_known] - 1 / batch["label"][is_known]
    assert float(difference.abs().mean()) < 0.1


def test_student_learns_from_scenes_with_and_without_labels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INSTIL_CACHE", str(tmp_path / "cache"))
    data = {"name": "shape_depths", "scenes": 24, "size": 8, "num_labeled": 8, "batch_size": 8}
    small = recipe(
        task="depth",
        data=data,
        teacher={"model": "depth_estimator", "options": {"width": 4, "levels": 2}},
        student={"model": "depth_estimator", "options": {"width": 2, "levels": 2}},
        objectives={"scale_invariant_log": {}, "affine_invariant": {}, "logit_mse": {}, "cwd": {}},
        export=None,
    )
    result = run_of(small, tmp_path / "run")
    assert (result["status"], result["headline"]) == ("complete", "delta1")
    for arm in ("teacher", "alone", "pseudo_labels", "distilled"):
        assert 0 <= result[arm]["delta1"]["mean"] <= 1
        assert result[arm]["abs_rel"]["mean"] >= 0
    assert result["export"]["onnx"]["max_difference"] < 1e-3
    losses = {"scale_invariant_log", "affine_invariant", "logit_mse", "cwd"}
    text = (tmp_path / "run" / "metrics.jsonl").read_text()
    assert all(f"student/{name}" in text for name in losses)
