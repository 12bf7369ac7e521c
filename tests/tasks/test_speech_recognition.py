"""Speech recognition: error rates, pseudo-labels, padding, and models of transformers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from instil import distil
from instil.core import Batch, Net
from instil.export.onnx import to_onnx
from instil.export.session import Session
from instil.networks.speech_recognizer import speech_recognizer
from instil.tasks.speech_recognition import SpeechRecognition
from tests.tasks.samples import spoken_texts

CLASSES = ("<blank>", "a", "b", " ")
SMALL: dict[str, Any] = {
    "hidden_size": 8,
    "num_attention_heads": 2,
    "intermediate_size": 8,
    "conv_dim": [4, 4],
    "conv_kernel": [10, 4],
    "conv_stride": [5, 4],
    "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 4,
    "num_conv_pos_embedding_groups": 2,
    "vocab_size": 4,
    # Dropout of whole layers and masks of time would make two calls differ.
    "layerdrop": 0.0,
    "mask_time_prob": 0.0,
}


def speech_model(kind: str, layers: int = 2, **options: Any) -> nn.Module:
    """Tiny random model for CTC; with the norm of single frames padding has no effect."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = SMALL | {"feat_extract_norm": "layer"} | options
    config = transformers.AutoConfig.for_model(kind, **sizes, num_hidden_layers=layers)
    model: nn.Module = transformers.AutoModelForCTC.from_config(config)
    return model.eval()


def waveforms() -> Batch:
    audio = torch.randn(2, 400, generator=torch.Generator().manual_seed(0))
    audio[1, 250:] = 0
    label = torch.tensor([[1, 2], [3, -100]])
    return {"audio": audio, "audio_length": torch.tensor([400, 250]), "label": label}


@pytest.mark.parametrize("kind", ["wav2vec2", "hubert"])
def test_models_of_transformers_have_logits_lengths_and_hidden_states(kind: str) -> None:
    model = speech_model(kind)
    batch = waveforms()
    with torch.no_grad():
        outputs = SpeechRecognition.call(model, batch)
        mask = (torch.arange(400) < batch["audio_length"][:, None]).long()
        expected = model(batch["audio"], attention_mask=mask).logits
        alone = SpeechRecognition.call(model, {key: one[1:] for key, one in batch.items()})
    assert outputs["frame_length"].tolist() == [19, 12]
    assert len(outputs["hidden_states"]) == 3
    torch.testing.assert_close(outputs["logits"][1, :12], expected[1, :12])
    assert (outputs["logits"][1, 12:] == 0).all()
    # Alone, the recording is cut to its own length and padded again.
    assert alone["logits"].shape == (1, 19, 4)
    torch.testing.assert_close(alone["logits"][0, :12], expected[1, :12], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kind", ["wav2vec2", "hubert"])
@pytest.mark.parametrize("width", [400, 1000])
def test_base_models_with_a_norm_over_time_ignore_padding(kind: str, width: int) -> None:
    # The checkpoints base of wav2vec 2.0 and HuBERT normalise each channel over time.
    model = speech_model(kind, feat_extract_norm="group")
    batch = waveforms()
    audio = torch.cat([batch["audio"], torch.ones(2, width - 400)], 1)
    lengths = batch["audio_length"]
    outputs = SpeechRecognition.call(model, batch | {"audio": audio})
    for row, length in enumerate(lengths.tolist()):
        with torch.no_grad():
            alone = model(batch["audio"][row : row + 1, :length]).logits[0]
        logits = outputs["logits"][row, : len(alone)]
        assert outputs["frame_length"][row] == len(alone)
        torch.testing.assert_close(logits, alone, rtol=1e-3, atol=1e-5)
    gradients = []
    for part in (batch | {"audio": audio}, {key: one[1:] for key, one in batch.items()}):
        model.zero_grad()
        rows = SpeechRecognition.call(model, part)["logits"]
        rows[-1, :12].square().sum().backward()
        norm = model.base_model.feature_extractor.conv_layers[0].layer_norm
        gradients.append(norm.weight.grad.clone())
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("name", ["ctc", "ctc_kd", "ctc_sequence", "distilhubert"])
@pytest.mark.parametrize("kind", ["wav2vec2", "hubert"])
def test_a_model_of_transformers_teaches_another_one(kind: str, name: str) -> None:
    teacher = speech_model(kind, layers=2)
    # A teacher with certain symbols, so that an untrained student differs from it.
    teacher.lm_head.weight.data.mul_(100)
    result = distil(
        *(teacher, speech_model(kind, layers=1), [waveforms()] * 4, name),
        task="speech_recognition",
        epochs=5,
        lr=3e-3,
        progress=False,
    )
    losses = [record["losses"][f"student/{name}"] for record in result.records]
    assert losses[-1] < losses[0]


def edit_distance(first: Sequence[object], second: Sequence[object]) -> int:
    """Smallest number of insertions, deletions and replacements, by recursion."""
    if not first or not second:
        return len(first) + len(second)
    rest = edit_distance(first[1:], second[1:])
    if first[0] == second[0]:
        return rest
    return 1 + min(rest, edit_distance(first[1:], second), edit_distance(first, second[1:]))


class Fixed(nn.Module):
    """Model whose most likely classes are given, one frame and one blank for each symbol."""

    def __init__(self, texts: Sequence[str]) -> None:
        super().__init__()
        self.frames = torch.zeros(len(texts), 20, 4)
        self.frames[..., 0] = 1
        for row, text in enumerate(texts):
            for position, letter in enumerate(text):
                self.frames[row, 2 * position, CLASSES.index(letter)] = 2

    def forward(self, audio: Tensor) -> Tensor:
        return self.frames


def test_error_rates_are_edit_distances_of_characters_and_words() -> None:
    predictions = ["ab a", "b  b", "", "aab ba", " a"]
    references = ["ab b", "b b", "ab", "ab ba a", "a"]
    label = torch.full((6, 7), -100)
    for row, text in enumerate(references):
        label[row, : len(text)] = torch.tensor([CLASSES.index(letter) for letter in text])
    batch = {"audio": torch.ones(6, 20, 1), "audio_length": torch.full((6,), 20), "label": label}
    task = SpeechRecognition()
    task.set_classes(CLASSES)
    # The last recording has no label, so its text does not count.
    metrics, _ = task.evaluate(Fixed([*predictions, "bbbb"]), [batch])
    errors = sum(map(edit_distance, predictions, references))
    assert metrics["character_error_rate"] == pytest.approx(errors / sum(map(len, references)))
    pairs = [(p.split(), r.split()) for p, r in zip(predictions, references, strict=True)]
    word_errors = sum(edit_distance(*pair) for pair in pairs)
    words = sum(len(reference) for _, reference in pairs)
    assert metrics["word_error_rate"] == pytest.approx(word_errors / words)


def test_pseudo_labels_are_greedy_texts_of_recordings_without_a_label() -> None:
    frames = torch.tensor([[1, 1, 0, 1, 2], [2, 3, 3, 0, 1]])
    outputs = {
        "logits": torch.nn.functional.one_hot(frames, 4).float(),
        "frame_length": torch.tensor([5, 4]),
    }
    label = torch.tensor([[3, -100], [-100, -100]])
    filled = SpeechRecognition().pseudo_labels(outputs, label)
    assert filled.tolist() == [[3, -100], [2, 3]]
    first = SpeechRecognition().pseudo_labels(outputs, torch.full((2, 2), -100))
    # The third symbol does not fit into the longest label of the data.
    assert first.tolist() == [[1, 1], [2, 3]]


def test_evaluation_reports_words_and_texts_with_the_symbols_of_the_data() -> None:
    task = SpeechRecognition()
    batch = spoken_texts()
    torch.manual_seed(0)
    model = speech_recognizer(4, 5, 8, 2, 3, 1)
    metrics, details = task.evaluate(model, [batch])
    assert set(metrics) == {"character_error_rate"}
    assert details == {}
    task.set_classes(CLASSES)
    metrics, details = task.evaluate(model, [batch], Net(model, task.call))
    assert set(metrics) == {"character_error_rate", "word_error_rate", "agreement"}
    assert metrics["agreement"] == 1
    assert details["transcripts"]["label"][0] == "a"
    assert len(details["transcripts"]["student"]) == 10


class OwnModel(nn.Module):
    """Model of a user that reads the audio only and returns a tensor; its stride is 3."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(5, 4, 3, stride=3, padding=1)

    def forward(self, audio: Tensor) -> Tensor:
        logits: Tensor = self.conv(audio.transpose(1, 2)).transpose(1, 2)
        return logits


def test_the_stride_of_a_users_model_follows_from_its_outputs() -> None:
    batch = {"audio": torch.randn(2, 10, 5), "audio_length": torch.tensor([9, 4])}
    outputs = SpeechRecognition.call(OwnModel(), batch)
    assert outputs["frame_length"].tolist() == [3, 2]
    # The batch is cut to 9 frames, and has as many output frames as 10 frames would have.
    assert outputs["logits"].shape == (2, 4, 4)


@pytest.mark.parametrize("stride", [2, 3, 4, 8])
@pytest.mark.parametrize("width", [1, 5, 17, 97])
def test_short_recordings_have_the_frames_of_the_whole_data(width: int, stride: int) -> None:
    model = speech_recognizer(4, 3, 8, 1, 5, stride, gru=0).eval()
    batch = {"audio": torch.zeros(1, 400, 3), "audio_length": torch.tensor([width])}
    with torch.no_grad():
        outputs = SpeechRecognition.call(model, batch)
    assert outputs["logits"].shape[1] == 400 // stride + (400 % stride > 0)
    assert outputs["frame_length"].tolist() == [-(-width // stride)]


class Strided(nn.Module):
    """Convolution of a user with stride 8, which returns logits only."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(3, 4, 9, 8, 4)

    def forward(self, audio: Tensor) -> Tensor:
        logits: Tensor = self.conv(audio.transpose(1, 2)).transpose(1, 2)
        return logits


def test_the_frames_of_a_recording_do_not_depend_on_the_longest_one_of_its_batch() -> None:
    model = Strided()
    lengths = []
    for longest in (97, 400):
        batch = {"audio": torch.zeros(2, 400, 3), "audio_length": torch.tensor([longest, 40])}
        outputs = SpeechRecognition.call(model, batch)
        lengths.append(int(outputs["frame_length"][1]))
        assert outputs["logits"].shape[1] == 50
    # With stride 7, the first batch would have 6 and 58 frames.
    assert lengths == [5, 5]


def test_a_model_without_padding_has_no_more_frames_than_outputs() -> None:
    model = nn.Sequential(Transposed(), nn.Conv1d(5, 4, 3, stride=2), Transposed())
    batch = {"audio": torch.randn(2, 100, 5), "audio_length": torch.tensor([100, 40])}
    outputs = SpeechRecognition.call(model, batch)
    assert outputs["logits"].shape[1] == 49
    assert outputs["frame_length"].tolist() == [49, 20]


class Transposed(nn.Module):
    def forward(self, audio: Tensor) -> Tensor:
        return audio.transpose(1, 2)


def test_wrong_batches_are_refused() -> None:
    task = SpeechRecognition()
    batch = spoken_texts()
    with pytest.raises(ValueError, match="audio: wrong form"):
        task.check_data(batch | {"audio": batch["audio"].long()})
    with pytest.raises(ValueError, match="a recording has 0 to 0 frames"):
        task.check_data(batch | {"audio_length": 0 * batch["audio_length"]})
    with pytest.raises(ValueError, match="needs 'audio_length'"):
        task.check_data({"audio": batch["audio"], "label": batch["label"]})
    assert task.adapt_batch({"audio": batch["audio"]})["audio_length"].tolist() == [8] * 12


def test_a_shorter_recording_is_padded_for_an_exported_student() -> None:
    batch = SpeechRecognition().to_batch(torch.ones(1, 5, 3), (8, 3))
    assert batch["audio"].shape == (1, 8, 3)
    assert batch["audio_length"].tolist() == [5]
    with pytest.raises(ValueError, match="9 frames are too long"):
        SpeechRecognition().to_batch(torch.ones(1, 9, 3), (8, 3))


@pytest.mark.slow
def test_the_onnx_file_of_a_base_model_ignores_padding(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    task = SpeechRecognition()
    net = Net(speech_model("hubert", feat_extract_norm="group"), task.call).eval()
    batch = waveforms()
    path = tmp_path / "student.onnx"
    to_onnx(net, batch, path, task.inputs, roles=task.roles)
    logits = Session(path, task.roles)(batch)["logits"]
    alone = net({key: one[1:] for key, one in batch.items()})["logits"]
    torch.testing.assert_close(logits[1:, :12], alone[:, :12], rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_the_onnx_file_has_the_texts_of_the_student(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    task = SpeechRecognition()
    torch.manual_seed(0)
    net = Net(speech_recognizer(4, 5, 8, 2, 3, 2), task.call).eval()
    batch = spoken_texts()
    path = tmp_path / "student.onnx"
    to_onnx(net, batch, path, task.inputs, roles=task.roles)
    session = Session(path, task.roles)
    outputs = session(batch)
    with torch.no_grad():
        expected = net(batch)
    torch.testing.assert_close(outputs["logits"], expected["logits"], rtol=1e-3, atol=1e-4)
    task.set_classes(CLASSES)
    assert task.transcripts(outputs) == task.transcripts(expected)
