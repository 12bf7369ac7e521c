"""DistilHuBERT against its equation, and on models of transformers."""

from __future__ import annotations

import math

import pytest
import torch

from instil.core import Net, Objectives
from instil.objectives.features.distilhubert import DistilHuBERT, distilhubert_loss
from instil.tasks.speech_recognition import SpeechRecognition
from tests.tasks.test_speech_recognition import speech_model, waveforms


def test_the_loss_follows_the_equation_without_padding() -> None:
    generator = torch.Generator().manual_seed(0)
    student = torch.randn(2, 3, 4, generator=generator)
    teacher = torch.randn(2, 3, 4, generator=generator)
    mask = torch.tensor([[1.0, 1, 1], [1, 0, 0]])
    values = distilhubert_loss(student, teacher, mask, cosine=0.5, reduction="none")
    for row, length in enumerate((3, 1)):
        total = 0.0
        for t in range(length):
            a, b = student[row, t].double(), teacher[row, t].double()
            cosine = float(a @ b / (a.norm() * b.norm()))
            total += float((a - b).abs().mean()) + 0.5 * math.log(1 + math.exp(-cosine))
        assert float(values[row]) == pytest.approx(total / length, rel=1e-5)


def test_three_teacher_layers_are_predicted_from_the_last_one() -> None:
    assert DistilHuBERT().choose(2, 12) == [(2, 4), (2, 8), (2, 12)]
    assert DistilHuBERT().choose(1, 2) == [(1, 1), (1, 2)]
    assert DistilHuBERT(layers=[[1, 3]]).choose(2, 12) == [(1, 3)]


def test_padding_of_the_batch_changes_nothing() -> None:
    call = SpeechRecognition.call
    student = Net(speech_model("hubert", layers=1), call)
    teacher = Net(speech_model("hubert", layers=3), call)
    objective = DistilHuBERT()
    batch = waveforms()
    with torch.no_grad():
        sides = [net.eval()(batch) for net in (student, teacher)]
        objectives = Objectives({"it": objective})
        objectives.build(*sides)
        loss = objectives(*sides, batch).losses["it"]
        for side in sides:
            changed = tuple(state.clone() for state in side["hidden_states"])
            for state in changed:
                state[1, side["frame_length"][1] :] = torch.nan
            side["hidden_states"] = changed
        torch.testing.assert_close(objectives(*sides, batch).losses["it"], loss)
    assert [teacher_layer for _, teacher_layer in objective.matched] == [1, 2, 3]
