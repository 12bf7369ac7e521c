"""Sequence to sequence: metrics compared with loops, pseudo-labels, errors."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from instil.core import Net, Objectives
from instil.data.pair_tokenizers import pair_tokenizer
from instil.data.sequence_pairs import text_pairs
from instil.networks.causal_transformer import causal_transformer
from instil.networks.encoder_decoder import encoder_decoder
from instil.objectives.logits.kd import KD
from instil.objectives.logits.regression_kd import RegressionKD
from instil.tasks.bases.sequence_metrics import symbols
from instil.tasks.seq2seq import Seq2Seq
from instil.teachers.frozen import Frozen
from tests.tasks.samples import SequenceProbe, sequences


def fixed_net(seed: int, batch: Any) -> Net:
    """A network with random logits and sequences."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(12, 5, 9, generator=generator)
    sequence = torch.randint(2, 9, (12, 5), generator=generator)
    # Half of the sequences are those of the labels.
    sequence[::2] = batch["label"][::2]
    outputs = {"logits": logits, "prediction": logits.argmax(-1), "sequence": sequence}
    return Net(nn.Identity(), lambda _, batch: dict(outputs))


def test_metrics_equal_loops_over_the_labelled_samples() -> None:
    batch = sequences()
    student, teacher = fixed_net(0, batch), fixed_net(1, batch)
    metrics = Seq2Seq().evaluate(student, [batch], Frozen(teacher))[0]
    outputs, teacher_outputs = student(batch), teacher(batch)
    rows = [row for row in range(12) if batch["valid"][row].any()]
    positions = [(n, t) for n in rows for t in range(5) if batch["valid"][n, t]]
    log = outputs["logits"].log_softmax(-1)
    losses = [-float(log[n, t, batch["label"][n, t]]) for n, t in positions]
    right = [int(outputs["prediction"][p]) == int(batch["label"][p]) for p in positions]
    same = [bool(outputs["prediction"][p] == teacher_outputs["prediction"][p]) for p in positions]
    targets = {n: [x for x in batch["label"][n].tolist() if x > 1] for n in rows}
    decoded = {}
    for n in rows:
        tokens = outputs["sequence"][n].tolist()
        end = min((i for i, token in enumerate(tokens) if token in (1, -100)), default=5)
        decoded[n] = tokens[:end]
    exact = [decoded[n] == targets[n] for n in rows]
    loss = sum(losses) / len(losses)
    assert metrics["loss"] == pytest.approx(loss, rel=1e-5)
    assert metrics["perplexity"] == pytest.approx(math.exp(loss), rel=1e-5)
    assert metrics["accuracy"] == pytest.approx(sum(right) / len(right))
    assert metrics["agreement"] == pytest.approx(sum(same) / len(same))
    assert metrics["exact_match"] == pytest.approx(sum(exact) / len(exact))
    assert metrics["exact_match"] >= 0.4
    assert 0 < metrics["error_rate"] < 1.5


def test_samples_without_a_label_have_no_word_errors() -> None:
    pairs = [("ab", "ba"), ("b", None)]
    samples = text_pairs(pairs, pair_tokenizer("characters", None, [("ab", "ba")]))
    label = samples.label[[0, 0]]
    net = Net(nn.Identity(), lambda _, batch: {"sequence": label, "logits": torch.zeros(2, 3, 5)})
    metrics, _ = Seq2Seq().evaluate_generation(net, samples)
    assert metrics == {"word_error_rate": 0, "character_error_rate": 0}


def test_a_sequence_ends_at_its_end_token() -> None:
    rows = torch.tensor([[5, 1, 6, -100], [1, 1, 1, 1], [4, 5, 6, 7]])
    assert symbols(rows, encoder_decoder(9).special_tokens) == [[5], [], [4, 5, 6, 7]]


def test_pseudo_labels_are_the_sequences_of_the_teacher() -> None:
    label = sequences()["label"]
    sequence = torch.full((12, 7), 4)
    filled = Seq2Seq().pseudo_labels({"sequence": sequence}, label)
    assert filled.shape == label.shape
    assert filled[7].tolist() == [4] * 5
    assert torch.equal(filled[8:], label[8:])


def test_an_untrained_network_writes_sequences_of_the_length_of_the_labels() -> None:
    torch.manual_seed(0)
    task = Seq2Seq()
    net = Net(encoder_decoder(9, width=8), task.call)
    assert net(sequences())["sequence"].shape == (12, 5)
    assert Net(SequenceProbe().eval(), task.call)(sequences())["sequence"].shape == (12, 5)


def test_batches_of_hugging_face_get_the_names_of_the_task() -> None:
    batch = sequences()
    other = {
        "input_ids": batch["input_ids"],
        "attention_mask": batch["encoder_attention_mask"],
        "labels": batch["label"],
    }
    adapted = Seq2Seq().adapt_batch(other)
    assert set(adapted) == {"input_ids", "encoder_attention_mask", "label", "valid"}
    expected = batch["valid"].clone()
    expected[7, 0] = True
    assert torch.equal(adapted["valid"], expected)


def test_wrong_data_and_objectives_are_errors() -> None:
    task, batch = Seq2Seq(), sequences()
    with pytest.raises(ValueError, match="needs an input of the encoder"):
        task.check_data({"label": batch["label"]})
    with pytest.raises(ValueError, match=r"token ids \(N, L\) as labels"):
        task.check_data(batch | {"label": batch["label"][:, 0]})
    with pytest.raises(ValueError, match="needs 'valid'"):
        task.check_data({key: value for key, value in batch.items() if key != "valid"})
    with pytest.raises(ValueError, match=r"objectives\.it: RegressionKD is undefined"):
        task.check(Objectives({"it": RegressionKD()}))
    task.check(Objectives({"it": KD()}))
    net = Net(encoder_decoder(9, width=8), task.call)
    unlabelled = batch | {"label": torch.full((12, 5), -100)}
    with pytest.raises(ValueError, match="no token to evaluate on"):
        task.evaluate(net, [unlabelled])


def test_wrong_models_are_errors() -> None:
    task, facts = Seq2Seq(), {"vocabulary": 9, "end": 1}
    task.check_model(encoder_decoder(9), facts)
    with pytest.raises(ValueError, match="Expected at least the 9"):
        task.check_model(encoder_decoder(8), facts)
    with pytest.raises(ValueError, match="its end token is 2"):
        task.check_model(encoder_decoder(9, end=2), facts)
    with pytest.raises(ValueError, match="lacks an encoder or a decoder"):
        task.check_model(causal_transformer(9), facts)
