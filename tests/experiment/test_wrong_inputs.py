"""Wrong inputs of each modality are errors before training; unusual ones work."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.io import wavfile

from instil.core import Net
from instil.experiment.experiment import Experiment
from instil.experiment.networks import build_network
from instil.networks.gcn import gcn
from instil.networks.gin import gin
from instil.networks.mlp import mlp
from instil.networks.sage import sage
from instil.recipe import RecipeError
from instil.tasks.node_classification import call
from tests.experiment.small import recipe

SOURCE = """
import torch
from instil.data.samples import TensorData
from instil.data.splits import Splits

def clouds(row: int = 0, value: str = "0"):
    parts = []
    for count in (40, 10, 10):
        points = torch.rand(count, 6, 3, generator=torch.Generator().manual_seed(count))
        label = torch.arange(count) % 2
        parts.append(TensorData({"points": points}, label, ["a", "b"], {"channels": 3}))
    parts[0].tensors["points"][row, 2, 1] = float(value)
    return Splits(*parts, ("a", "b"), "single")
"""
POINTNET = {"model": "pointnet", "options": {"width": 4}}
AUDIO: dict[str, Any] = {
    "task": "audio_classification",
    "data": {
        "name": "audio",
        "files": "list.jsonl",
        "columns": {"audio": "audio", "label": "word"},
    },
    "teacher": {"model": "audio_classifier"},
    "student": {"model": "audio_classifier"},
    "objectives": {"kd": {}},
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shapes_of_user.py").write_text(SOURCE)
    return tmp_path


def write_recordings(folder: Path, rate: int, channels: int, seconds: float) -> None:
    """Write 20 recordings of two words; the last one has this form."""
    lines = []
    for row in range(20):
        is_last = row == 19
        length = round((seconds if is_last else 0.1) * (rate if is_last else 16000))
        tone = (8000 * np.sin(np.arange(length) / 5)).astype(np.int16)
        if is_last and channels > 1:
            tone = np.stack([tone] * channels, 1)
        wavfile.write(folder / f"{row}.wav", rate if is_last else 16000, tone)
        lines.append(json.dumps({"audio": f"{row}.wav", "word": ("no", "yes")[row % 2]}) + "\n")
    (folder / "list.jsonl").write_text("".join(lines))


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ((8000, 1, 0.1), r"19\.wav has 8000 samples per second\. Expected 16000\. Set rate: 8000"),
        ((16000, 2, 0.1), r"19\.wav has 2 channels\. Expected one\. Set convert: true"),
        ((16000, 1, 0.0), r"19\.wav is empty\. Expected at least one sample"),
    ],
    ids=["rate", "stereo", "empty"],
)
def test_recordings_of_another_form_are_errors(
    folder: Path, form: tuple[int, int, float], message: str
) -> None:
    write_recordings(folder, *form)
    with pytest.raises(RecipeError, match=f"^data: .*{message}"):
        Experiment.from_recipe(recipe(**AUDIO))


def test_another_rate_and_stereo_work_on_request(folder: Path) -> None:
    write_recordings(folder, 8000, 2, 0.1)
    converted = Experiment.from_recipe(recipe("data.convert=true", **AUDIO))
    assert converted.splits.train.facts["features"] == 40


@pytest.mark.parametrize("value", ["nan", "inf"])
def test_a_late_sample_of_a_function_with_nan_is_an_error(folder: Path, value: str) -> None:
    points: dict[str, Any] = {
        "task": "point_classification",
        "teacher": POINTNET,
        "student": POINTNET,
        "objectives": {"kd": {}},
    }
    data = {"name": "shapes_of_user:clouds", "row": 37}
    Experiment.from_recipe(recipe(data=data, **points))
    message = "^data: points: sample 37 of train has NaN or infinite values. Expected finite"
    with pytest.raises(RecipeError, match=message):
        Experiment.from_recipe(recipe(data=data | {"value": value}, **points))


@pytest.mark.parametrize("model", [gcn, sage, mlp])
def test_a_node_without_an_edge_has_finite_outputs_and_gradients(model: Any) -> None:
    torch.manual_seed(0)
    net = Net(model(classes=3, features=4), call)
    batch = {
        "x": torch.rand(5, 4),
        "edge_index": torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]]),
        "label": torch.tensor([0, 1, 2, 0, 1]),
    }
    logits = net(batch)["logits"]
    assert logits.shape == (5, 3)
    torch.nn.functional.cross_entropy(logits, batch["label"]).backward()
    assert logits.isfinite().all()
    gradients = [one.grad for one in net.parameters() if one.grad is not None]
    assert gradients
    assert all(bool(one.isfinite().all()) for one in gradients)


def test_a_graph_without_edges_has_finite_outputs() -> None:
    torch.manual_seed(0)
    model = gin(classes=3, features=4).eval()
    logits = model(torch.rand(2, 5, 4), torch.zeros(2, 5, 5), torch.ones(2, 5, dtype=torch.bool))
    logits = logits["logits"] if isinstance(logits, dict) else logits
    assert logits.isfinite().all()


def test_unknown_categories_are_noted_and_missing_columns_are_errors(folder: Path) -> None:
    lines = [f"{20 + row},{('cook', 'nurse')[row % 2]},{'ny'[row % 2]}\n" for row in range(20)]
    (folder / "people.csv").write_text("age,job,y\n" + "".join(lines))
    (folder / "new.csv").write_text("age,job,y\n30,pilot,n\n31,cook,y\n")
    network = {"model": "mlp", "options": {"width": 4}}
    sections: dict[str, Any] = {
        "task": "tabular_classification",
        "data": {
            "name": "table",
            "files": {"train": "people.csv", "test": "new.csv"},
            "label": "y",
        },
        "teacher": network,
        "student": network,
        "objectives": {"kd": {}},
    }
    experiment = Experiment.from_recipe(recipe(**sections))
    assert any("1 values of unknown categories" in note for note in experiment.notes)
    student = build_network(experiment.recipe.student, experiment, "student")
    batch = experiment.splits.test.__getitems__([0, 1])
    assert student(batch)["logits"].isfinite().all()
    (folder / "new.csv").write_text("age,y\n30,n\n")
    with pytest.raises(RecipeError, match=r"^data\.files\.test: no column 'job'"):
        Experiment.from_recipe(recipe(**sections))


def test_an_unknown_sampler() -> None:
    one = Experiment.from_recipe(recipe("data.sampler=class_pair"))
    with pytest.raises(RecipeError, match=r"data.sampler: unknown sampler 'class_pair'"):
        one.loader(one.splits.train, 0, shuffle=True, sampler=one.recipe.data.sampler)
