"""The loss of the N best texts against a sum over all texts."""

from __future__ import annotations

import torch

from instil.objectives.labels.ctc import ctc_loss
from instil.objectives.logits.ctc_sequence import ctc_sequence_loss, teacher_sequences
from tests.functional.test_ctc import probabilities


def test_the_loss_weighs_the_most_likely_texts_by_their_probabilities() -> None:
    generator = torch.Generator().manual_seed(0)
    student = torch.randn(1, 6, 3, generator=generator)
    teacher = torch.randn(1, 4, 3, generator=generator)
    value = ctc_sequence_loss(
        student, teacher, torch.tensor([6]), torch.tensor([4]), size=3, width=64
    )
    best = probabilities(teacher[0].double().log_softmax(-1)).items()
    ranked = sorted(best, key=lambda item: -item[1])[:3]
    total = sum(probability for _, probability in ranked)
    of_student = probabilities(student[0].double().log_softmax(-1))
    expected = 0.0
    for text, probability in ranked:
        nll = -torch.tensor(of_student[text]).log() / max(1, len(text))
        expected += probability / total * float(nll)
    torch.testing.assert_close(float(value), expected, rtol=1e-4, atol=1e-5)


def test_one_certain_text_is_the_loss_of_that_label() -> None:
    student = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(1))
    frames = torch.tensor([[1, 0, 1, 3], [2, 2, 0, 0]])
    teacher = 50 * torch.nn.functional.one_hot(frames, 4).float()
    lengths = torch.tensor([5, 4]), torch.tensor([4, 3])
    value = ctc_sequence_loss(student, teacher, *lengths, size=1)
    label = torch.tensor([[1, 1, 3], [2, -100, -100]])
    torch.testing.assert_close(value, ctc_loss(student, label, lengths[0]))


def test_fewer_texts_than_requested_have_the_whole_weight() -> None:
    teacher = torch.zeros(1, 1, 2)
    target, weight = teacher_sequences(teacher, torch.tensor([1]), size=4, width=8)
    assert target.shape == (1, 4, 1)
    torch.testing.assert_close(weight, torch.tensor([[0.5, 0.5, 0, 0]]))
