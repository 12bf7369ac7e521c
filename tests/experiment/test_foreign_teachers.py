"""Teachers that are not PyTorch networks: an ONNX file, an API of texts, and early errors."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from rich.console import Console

from instil import catalogue
from instil.cards import has_tag
from instil.data.sources.digits import digits
from instil.plan.doctor import doctor
from instil.plan.recording import record_outputs
from instil.recipe.errors import RecipeError
from tests.experiment import test_api_teachers as api
from tests.experiment.small import numbers, recipe, run_of
from tests.remote.stub import Stub

CHANGES = ("seeds=[0]", "baselines=[alone, pseudo_labels]")
server = api.server


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("INSTIL_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_linear_classifier(path: Path) -> None:
    """ONNX file of the least-squares classifier of the digits, whose outputs are its logits."""
    onnx = pytest.importorskip("onnx")
    train = digits().train
    image = train.inputs(torch.arange(len(train)))["image"].flatten(1)
    target = 10 * F.one_hot(train.label, 10).float()
    ridge = image.T @ image + torch.eye(64)
    weight = torch.linalg.solve(ridge, image.T @ target).numpy()
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [
            helper.make_node("Flatten", ["image"], ["rows"]),
            helper.make_node("MatMul", ["rows", "weight"], ["logits"]),
        ],
        "linear",
        [helper.make_tensor_value_info("image", kind, ["N", 1, 8, 8])],
        [helper.make_tensor_value_info("logits", kind, ["N", 10])],
        [onnx.numpy_helper.from_array(weight, "weight")],
    )
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)


def test_an_onnx_file_teaches_in_run_doctor_and_record(folder: Path) -> None:
    pytest.importorskip("onnxruntime")
    write_linear_classifier(folder / "teacher.onnx")
    teacher = {"model": "onnx:teacher.onnx"}
    few_labels = ("data.num_labeled=20", "train.epochs=15", "student.options.width=16")
    taught = recipe(*CHANGES, *few_labels, teacher=teacher)
    live = run_of(taught, folder / "live")
    assert live["teacher"]["accuracy"]["mean"] > 0.9
    assert live["distilled"]["accuracy"]["mean"] > live["alone"]["accuracy"]["mean"]
    findings = doctor(taught)
    assert findings["run"]["teachers"] == 0
    assert findings["stages"][0]["match"]["teacher_accuracy"] > 0.9
    stored = recipe(*CHANGES, *few_labels, "store.path=store", teacher=teacher)
    record_outputs(stored, Console(quiet=True))
    assert numbers(run_of(stored, folder / "stored")) == numbers(live)
    with pytest.raises(RecipeError, match=r"no such file: .*techer\.onnx\. Did you mean teacher"):
        doctor(recipe(*CHANGES, teacher="onnx:techer.onnx"))


def test_an_api_teaches_a_text_classifier(server: Stub, tmp_path: Path) -> None:
    label = np.arange(api.SAMPLES) % 3
    ids = np.full((api.SAMPLES, 4), 1) + label[:, None]
    mask = np.ones_like(ids)
    np.savez("texts.npz", ids=ids, mask=mask, label=label, classes=api.CLASSES)
    columns = {"input_ids": "ids", "attention_mask": "mask", "label": "label"}
    student = {"vocabulary": 8, "length": 4, "width": 8, "depth": 1}
    teacher = {"url": server.url, "texts": "texts.jsonl", "prompt": "How is it? {text}"}
    taught = recipe(
        "seeds=[0]",
        "baselines=[alone]",
        task="text_classification",
        data={"name": "npz:texts.npz", "columns": columns, "batch_size": 20},
        student={"model": "text_transformer", "options": student},
        teacher={"model": "api:teacher", "options": teacher},
    )
    result = run_of(taught, tmp_path / "run")
    assert result["task"] == "text_classification"
    assert result["teacher"]["accuracy"]["mean"] == 1.0
    assert len(server.answered) == api.SAMPLES
    assert doctor(taught)["stages"][0]["match"]["teacher_accuracy"] == 1.0


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        (
            {"objectives": {"jacobian": {}}},
            r"^objectives\.jacobian: Jacobian needs gradients of the teacher's outputs with "
            r"respect to its input, and the teacher sklearn:LogisticRegression has none",
        ),
        (
            {"objectives": {"fitnet": {}}},
            r"^objectives\.fitnet: FitNet reads features of the teacher, and the teacher "
            r"sklearn:LogisticRegression returns logits only\. Expected a PyTorch network",
        ),
        ({"objectives": {"simkd": {}}}, r"^objectives\.simkd: SimKD reads features of the teacher"),
        (
            {"scheme": "adaad"},
            r"^scheme: adaad needs gradients of the teacher's outputs.*Use scheme: offline",
        ),
        ({"scheme": "boundary_samples"}, r"^scheme: boundary_samples needs gradients of the"),
        ({"scheme": "fcfd"}, r"^scheme: fcfd needs the modules of the teacher"),
        ({"scheme": "spot_adaptive"}, r"^scheme: spot_adaptive needs the modules of the teacher"),
    ],
)
def test_gradients_modules_and_features_are_refused_early(
    folder: Path, sections: dict[str, Any], message: str
) -> None:
    pytest.importorskip("skops")
    with pytest.raises(RecipeError, match=message):
        doctor(
            recipe("seeds=[0]", "baselines=[]", teacher="sklearn:LogisticRegression", **sections)
        )


def test_a_robust_student_of_an_estimator_is_attacked_and_its_teacher_is_not(folder: Path) -> None:
    pytest.importorskip("skops")
    teacher = {"model": "sklearn:LogisticRegression", "options": {"max_iter": 500}}
    robust = recipe("seeds=[0]", "baselines=[]", "train.epochs=1", teacher=teacher, scheme="rslad")
    result = run_of(robust, folder / "run")
    assert "pgd" in result["distilled"]
    assert "pgd" not in result["teacher"]
    by_attack = robust.model_copy(update={"headline": "pgd"})
    result = run_of(by_attack, folder / "by_attack")
    assert (result["headline"], "teacher" in result) == ("pgd", False)


def sources(cls: type[Any]) -> str:
    return "\n".join(
        inspect.getsource(base) for base in cls.__mro__ if base.__module__.startswith("instil.sch")
    )


@pytest.mark.parametrize("name", catalogue.files("scheme"))
def test_schemes_declare_their_use_of_the_teacher(name: str) -> None:
    scheme = catalogue.find("scheme", name)
    code = sources(scheme)
    gradients = ("grad=True", "grad=is_differentiated", "grad = torch.is_grad_enabled()")
    modules = ("self.teacher.net", 'getattr(self.teacher, "net"')
    assert has_tag(scheme, "teacher_gradients") == any(text in code for text in gradients)
    assert has_tag(scheme, "teacher_modules") == any(text in code for text in modules)
