import functools
import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from instil.core import Batch, Net, Outputs
from instil.export import onnx as export
from instil.export.int8 import quantize
from instil.export.latency import measure
from instil.export.onnx import to_onnx
from instil.export.onnx_labels import describe
from instil.export.session import Session
from instil.networks.audio_classifier import audio_classifier
from instil.networks.detector import detector
from instil.networks.text_transformer import text_transformer
from instil.tasks.audio_classification import AudioClassification
from instil.tasks.classification import call
from instil.tasks.detection import Detection
from instil.tasks.sentence_embedding import SentenceEmbedding
from tests.tasks.samples import text_pairs


@pytest.fixture
def file(net: Net, batch: Batch, tmp_path: Path) -> Path:
    to_onnx(net, batch, tmp_path / "student.onnx")
    return tmp_path / "student.onnx"


def test_the_file_gives_the_nets_logits_at_any_batch_size(
    net: Net, batch: Batch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    state = {name: value.clone() for name, value in net.state_dict().items()}
    answer = to_onnx(net, batch, tmp_path / "student.onnx")
    path = tmp_path / "student.onnx"
    assert answer["file"] == "student.onnx"
    assert answer["bytes"] == path.stat().st_size
    assert 0 <= answer["max_difference"] < 1e-5
    assert capfd.readouterr() == ("", ""), "the exporter's own talk is not the user's"
    assert list(tmp_path.iterdir()) == [path], "one self-contained file"
    assert all(part.training for part in net.modules()), "the net is left as it was"
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())
    net.eval()
    for n in (1, 5, 17):
        image = torch.rand(n, 1, 8, 8)
        torch.testing.assert_close(
            Session(path)({"image": image})["logits"],
            net({"image": image})["logits"],
            atol=1e-5,
            rtol=1e-5,
        )


def test_the_file_has_no_traces_of_the_machine(file: Path) -> None:
    assert b".py" not in file.read_bytes()


def test_a_batch_of_one_exports_with_any_batch_size(net: Net, batch: Batch, tmp_path: Path) -> None:
    to_onnx(net, {"image": batch["image"][:1]}, tmp_path / "s.onnx")
    assert Session(tmp_path / "s.onnx")(batch)["logits"].shape == (32, 5)


def test_a_difference_is_an_error_and_leaves_the_older_file(
    net: Net, batch: Batch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "s.onnx"
    path.write_bytes(b"older")
    for change in (lambda logits: logits * 1.001, lambda logits: logits * float("nan")):
        monkeypatch.setattr(
            Session,
            "forward",
            lambda self, batch, change=change: {
                "logits": change(net.eval()(batch)["logits"].detach())
            },
        )
        with pytest.raises(
            RuntimeError, match=r"logits of the ONNX file differ from PyTorch at batch size 1"
        ):
            to_onnx(net, batch, path)
        assert path.read_bytes() == b"older"
    assert list(tmp_path.iterdir()) == [path]


def test_a_call_that_needs_more_than_images_is_refused(
    net: Net, batch: Batch, tmp_path: Path
) -> None:
    def needs_mask(model: nn.Module, batch: Batch) -> Outputs:
        return {"logits": model(batch["image"] * batch["mask"])}

    with pytest.raises(
        ValueError, match=r"reads 'mask' of the batch. Expected a call that reads only .*'image'"
    ):
        to_onnx(Net(net.model, needs_mask), batch, tmp_path / "s.onnx")


def test_a_model_that_cannot_be_traced_is_one_clear_error(batch: Batch, tmp_path: Path) -> None:
    class Looks(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1) if x.sum() > 0 else -x.flatten(1)

    with pytest.raises(ValueError, match=r"torch\.onnx cannot export this student"):
        to_onnx(Net(Looks()), batch, tmp_path / "s.onnx")
    assert not list(tmp_path.iterdir())


def test_int8_is_smaller_and_close(
    net: Net, file: Path, batch: Batch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    answer = quantize(file, [batch, batch], tmp_path / "int8.onnx")
    assert answer == {"file": "int8.onnx", "bytes": (tmp_path / "int8.onnx").stat().st_size}
    assert capfd.readouterr() == ("", "")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["int8.onnx", "student.onnx"]
    expected = net.eval()(batch)["logits"].detach()
    result = Session(tmp_path / "int8.onnx")(batch)["logits"]
    error = (result - expected).abs().max() / expected.abs().max()
    assert 0 < error < 0.1, "quantized, and not by much"
    types = {
        node.op_type for node in pytest.importorskip("onnx").load(tmp_path / "int8.onnx").graph.node
    }
    assert {"QuantizeLinear", "DequantizeLinear"} <= types


def check_int8_logits(model: nn.Module, batch: Batch, folder: Path) -> None:
    """Export and quantise a model; its logits change by less than 2 % of the largest one."""
    to_onnx(Net(model), batch, folder / "student.onnx")
    quantize(folder / "student.onnx", [batch], folder / "int8.onnx")
    expected = Session(folder / "student.onnx")(batch)["logits"]
    difference = Session(folder / "int8.onnx")(batch)["logits"] - expected
    assert difference.abs().max() < 0.02 * expected.abs().max()


def test_int8_sums_do_not_overflow(tmp_path: Path) -> None:
    """Sums of two products of signed integers overflow on processors without VNNI."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 3))
    nn.init.uniform_(model[1].weight, 0.9, 1.0)  # type: ignore[arg-type]
    batch = {"image": torch.rand(16, 1, 8, 8)}
    check_int8_logits(model, batch, tmp_path)


@pytest.mark.parametrize("size", [0.0, 1e-8, 1e-5, 1e-3])
def test_int8_biases_next_to_small_weights_do_not_overflow(size: float, tmp_path: Path) -> None:
    """A channel without effect, such as one with a small factor of BatchNorm, keeps its bias."""
    onnx = pytest.importorskip("onnx")
    torch.manual_seed(0)
    layers = (nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 8))
    model: Any = nn.Sequential(*layers, nn.ReLU(), nn.Linear(8, 3))
    with torch.no_grad():
        model[1].weight[2] = size
        model[1].bias[2] = 1.0
        model[4].weight[3:5] *= size
        model[4].bias[3:5] = torch.tensor([2.0, -2.0])
    batch = {"image": torch.rand(16, 1, 8, 8)}
    check_int8_logits(model, batch, tmp_path)
    tensors = onnx.load(tmp_path / "int8.onnx").graph.initializer
    kinds = {tensor.data_type for tensor in tensors}
    assert onnx.TensorProto.UINT8 in kinds
    assert onnx.TensorProto.INT8 not in kinds


def test_int8_errors(file: Path, batch: Batch, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one batch"):
        quantize(file, [], tmp_path / "int8.onnx")
    with pytest.raises(ValueError, match=r"Expected an ONNX file, got .*absent\.onnx"):
        quantize(tmp_path / "absent.onnx", [batch], tmp_path / "int8.onnx")


def test_latency_of_nets_and_sessions(net: Net, file: Path, batch: Batch) -> None:
    for ask in (net, Session(file)):
        result = measure(ask, batch, batch_size=4, repeats=5)
        assert 0 < result["median_ms"] <= result["p90_ms"]
        assert (result["batch_size"], result["threads"]) == (4, torch.get_num_threads())
    assert net.training


def test_latency_has_the_requested_batch_size_and_repeats(batch: Batch) -> None:
    sizes = []
    result = measure(
        lambda part: sizes.append(len(part["image"])), batch, batch_size=40, repeats=7, warm_up=3
    )
    assert sizes == [40] * 10
    assert result["batch_size"] == 40
    with pytest.raises(ValueError, match="Expected at least 1"):
        measure(lambda part: None, batch, batch_size=0)


def test_session_refuses_other_files_and_graphs(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such file"):
        Session(tmp_path / "absent.onnx")
    (tmp_path / "broken.onnx").write_bytes(b"broken")
    with pytest.raises(
        ValueError, match=r"broken\.onnx is not an ONNX file that onnxruntime can run"
    ):
        Session(tmp_path / "broken.onnx")


@pytest.mark.parametrize(
    ("hidden", "act"),
    [
        ("onnx", "export"),
        ("onnxscript", "export"),
        ("onnxruntime", "export"),
        ("onnxruntime.quantization", "int8"),
    ],
)
def test_without_the_extra_the_error_names_it(
    net: Net, batch: Batch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hidden: str, act: str
) -> None:
    monkeypatch.setitem(sys.modules, hidden, None)
    with pytest.raises(ImportError, match=r'pip install "instil\[export\]"'):
        to_onnx(net, batch, tmp_path / "s.onnx") if act == "export" else quantize(
            tmp_path / "s.onnx", [batch], tmp_path / "i.onnx"
        )


def test_warnings_of_the_users_model_are_not_swallowed(
    net: Net, batch: Batch, tmp_path: Path
) -> None:
    import warnings

    with export._quiet(), pytest.warns(UserWarning, match="mine"):
        warnings.warn("mine", stacklevel=1)


def test_axes_and_metadata_have_names(net: Net, batch: Batch, tmp_path: Path) -> None:
    import onnx

    normalised = Net(net.model, functools.partial(call, size=8, mean=[0.5], std=[0.25]))
    classes = ["cat", "dog", "eel", "fox", "großer Bär"]
    metadata = describe(normalised, "classification", classes, (1, 8, 8), ("image",))
    path, small = tmp_path / "s.onnx", tmp_path / "s.int8.onnx"
    to_onnx(normalised, batch, path, metadata=metadata)
    quantize(path, [batch], small)
    for file in (path, small):
        model = onnx.load(str(file))
        result = {entry.key: entry.value for entry in model.metadata_props}
        assert json.loads(result["classes"]) == classes
        assert json.loads(result["input_shape"]) == [1, 8, 8]
        assert json.loads(result["input_range"]) == [0, 1]
        assert json.loads(result["normalisation"]) == {
            "where": "inside the graph",
            "size": 8,
            "mean": [0.5],
            "std": [0.25],
        }
        assert (result["task"], result["instil_version"]) == ("classification", version("instil"))
        axes = {
            value.name: [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
            for value in (*model.graph.input, *model.graph.output)
        }
        assert axes == {"image": ["batch", 1, 8, 8], "logits": ["batch", 5]}


def test_a_file_without_metadata_still_names_its_axes(file: Path) -> None:
    import onnx

    model = onnx.load(str(file))
    assert not model.metadata_props
    assert model.graph.output[0].type.tensor_type.shape.dim[0].dim_param == "batch"


def test_the_outputs_of_a_detector_have_the_names_of_their_roles(tmp_path: Path) -> None:
    model = detector(5, bins=9, width=2).eval()
    detection = Net(model, Detection.call)
    images = {"image": torch.rand(4, 1, 8, 8)}
    path = tmp_path / "detector.onnx"
    facts = to_onnx(detection, images, path, roles=Detection.roles)
    assert facts["max_difference"] < 1e-4
    outputs = Session(path, Detection.roles)(images)
    expected = detection(images)
    assert list(outputs) == ["logits", "box_logits"]
    for role, value in outputs.items():
        torch.testing.assert_close(value, expected[role], atol=1e-4, rtol=1e-4)
    with pytest.raises(ValueError, match="Expected a graph with the output 'logits', got"):
        Session(path)
    with pytest.raises(ValueError, match=r"^roles: the student has no output 'masks'"):
        to_onnx(detection, images, path, roles=("masks",))


def test_an_exported_encoder_embeds_both_texts_of_a_pair(tmp_path: Path) -> None:
    task = SentenceEmbedding()
    batch = text_pairs() | {"label": torch.arange(len(text_pairs()["input_ids"])) % 2}
    vocabulary = int(batch["input_ids"].max()) + 1
    length = batch["input_ids"].shape[1]
    model = text_transformer(3, vocabulary=vocabulary, length=length, width=4, depth=1)
    embedder = Net(model.eval(), task.call)
    path = tmp_path / "encoder.onnx"
    to_onnx(embedder, batch, path, task.export_inputs, roles=task.export_roles)
    session = Session(path, task.export_roles)
    assert session.names == ["input_ids", "attention_mask"]
    metrics, _ = task.evaluate(Net(session, task.call_exported), [batch])
    assert metrics == pytest.approx(task.evaluate(embedder, [batch])[0])


def test_a_tapped_embedding_is_an_output_of_the_graph(
    net: Net, batch: Batch, tmp_path: Path
) -> None:
    to_onnx(net, batch, tmp_path / "student.onnx", roles=("embedding",))
    outputs = Session(tmp_path / "student.onnx", ("embedding",))({"image": batch["image"]})
    expected = net.eval()(batch)["embedding"].detach()
    torch.testing.assert_close(outputs["embedding"], expected, atol=1e-5, rtol=1e-5)


def test_a_recording_of_one_frame_has_finite_logits(tmp_path: Path) -> None:
    """The exporter drops the addition of constants below 1e-8, so that a variance of 0 stays 0."""
    model = audio_classifier(3, 4, width=4, depth=1, embedding=4).eval()
    frames = torch.randn(2, 6, 4)
    batch = {"audio": frames, "audio_length": torch.tensor([6, 1])}
    net = Net(model, AudioClassification().call)
    to_onnx(net, batch, tmp_path / "student.onnx", tuple(batch))
    assert Session(tmp_path / "student.onnx")(batch)["logits"].isfinite().all()
