"""Attention transfer of encoder-decoders: formula, masks, layers, errors."""

from __future__ import annotations

import pytest
import torch

from instil.objectives.features.seq2seq_attention import (
    Seq2SeqAttention,
    seq2seq_attention_loss,
)
from instil.testing.samples import sample_outputs
from tests.schemes.pairs import net, pairs


def maps(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).softmax(-1)


def test_the_value_is_the_divergence_of_the_means_over_the_heads() -> None:
    student, teacher = maps(2, 2, 3, 4), maps(2, 3, 3, 4, seed=1)
    mask = torch.tensor([[1, 1, 1], [1, 0, 0]])
    values = seq2seq_attention_loss(student, teacher, mask, "none")
    for row, length in ((0, 3), (1, 1)):
        p, q = teacher[row].mean(0)[:length], student[row].mean(0)[:length]
        expected = (p * (p / q).log()).sum(-1).mean()
        torch.testing.assert_close(values[row], expected)


def test_keys_that_neither_side_sees_count_nothing() -> None:
    attention = maps(1, 2, 3, 3) * torch.ones(3, 3).tril()
    attention = attention / attention.sum(-1, keepdim=True)
    assert seq2seq_attention_loss(attention, attention) == 0


def test_each_part_is_the_mean_over_its_layers_and_the_parts_are_summed() -> None:
    student, teacher, batch = sample_outputs(task="seq2seq")
    parts = {
        part: Seq2SeqAttention(parts=part)(student, teacher, batch)
        for part in ("encoder", "decoder", "cross")
    }
    whole = Seq2SeqAttention()(student, teacher, batch)
    torch.testing.assert_close(sum(parts.values()), whole)
    pairs_of_layers = zip(
        student["cross_attentions"], teacher["cross_attentions"][1::2], strict=True
    )
    layers = [seq2seq_attention_loss(a, b, None, "none") for a, b in pairs_of_layers]
    torch.testing.assert_close(parts["cross"], torch.stack(layers).mean(0))


def test_networks_of_other_depth_and_heads_learn_the_attention() -> None:
    student, teacher, batch = net(8), net(8, 1, depth=2), pairs()
    objective = Seq2SeqAttention()
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-2)
    with torch.no_grad():
        target = teacher(batch)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = objective(student(batch), target, batch).mean()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]


def test_other_numbers_of_queries_are_an_error() -> None:
    with pytest.raises(ValueError, match="Expected equal numbers of samples, queries and keys"):
        seq2seq_attention_loss(maps(1, 2, 3, 4), maps(1, 2, 3, 5))
