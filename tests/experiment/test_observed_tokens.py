"""Samples on which parts of a model are chosen: padding does not count."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from instil.core import Batch
from instil.experiment.compression import Observer
from instil.experiment.observed_tokens import token_masks
from instil.students.depth import depth
from instil.students.low_rank import low_rank
from instil.students.lsq import lsq
from instil.students.width import width
from instil.tasks.language import call
from tests.students.nets import llama
from tests.tasks.test_speech_recognition import speech_model


class Texts:
    """Sixteen texts of four to eight tokens, padded to a width."""

    def __init__(self, padding: int):
        generator = torch.Generator().manual_seed(3)
        lengths = torch.randint(4, 9, (16,), generator=generator).tolist()
        self.rows = [torch.randint(1, 23, (length,), generator=generator) for length in lengths]
        self.padding = padding

    def __len__(self) -> int:
        return len(self.rows)

    def __getitems__(self, rows: Sequence[int]) -> Batch:
        ids = torch.zeros(len(rows), 8 + self.padding, dtype=torch.int64)
        mask = torch.zeros_like(ids)
        for index, row in enumerate(rows):
            ids[index, : len(self.rows[row])] = self.rows[row]
            mask[index, : len(self.rows[row])] = 1
        return {"input_ids": ids, "attention_mask": mask}


def changed(change: Any, padding: int, **options: Any) -> dict[str, Tensor]:
    samples: Any = Texts(padding)
    model: nn.Module = change(llama(), **options, observe=Observer(call, samples))
    return model.state_dict()


@pytest.mark.parametrize(
    ("change", "options"),
    [
        (width, {"neurons": 12, "groups": 1}),
        (width, {"channels": 12}),
        (low_rank, {"rank": 4}),
        (lsq, {}),
    ],
)
def test_the_student_does_not_depend_on_the_padding(change: Any, options: dict[str, Any]) -> None:
    state = changed(change, 0, **options)
    for name, value in changed(change, 200, **options).items():
        torch.testing.assert_close(value, state[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("by", ["influence", "block"])
def test_the_layers_do_not_depend_on_the_padding(by: Any) -> None:
    model = llama(num_hidden_layers=6)
    layers = []
    for padding in (0, 200):
        samples: Any = Texts(padding)
        student: Any = depth(copy.deepcopy(model), 3, by=by, observe=Observer(call, samples))
        layers.append([layer.mlp.up_proj.weight for layer in student.model.layers])
    assert all(map(torch.equal, *layers))


def test_the_low_rank_head_is_the_best_one_on_the_tokens() -> None:
    model = llama()
    texts = Texts(0)
    hidden = []
    with torch.no_grad():
        for row in texts.rows:
            batch = {"input_ids": row[None], "attention_mask": torch.ones(1, len(row)).long()}
            hidden.append(call(model, batch)["projection"].hidden[0])
    states = torch.cat(hidden).double()
    weight = model.lm_head.weight.detach().double()
    best = torch.linalg.svdvals(states @ weight.T)[4:].square().sum()
    samples: Any = Texts(200)
    head: Any = low_rank(model, 4, Observer(call, samples))
    with torch.no_grad():
        error = (head.lm_head(states.float()) - states @ weight.T).square().sum()
    assert error < 1.001 * best


def test_masks_of_pairs_and_of_speech() -> None:
    mask = torch.tensor([[1, 1, 0], [1, 1, 1]])
    valid = torch.tensor([[True, False], [True, True]])
    masks = token_masks(nn.Identity(), {"encoder_attention_mask": mask, "valid": valid})
    assert [one.tolist() for one in masks] == [(mask > 0).tolist(), valid.tolist()]
    # The targets of a decoder alone are fewer than its tokens.
    batch = {"attention_mask": mask, "valid": mask > 1}
    assert [one.tolist() for one in token_masks(nn.Identity(), batch)] == [(mask > 0).tolist()]
    audio = {"audio": torch.zeros(2, 500), "audio_length": torch.tensor([400, 250])}
    (frames,) = token_masks(speech_model("hubert"), audio)
    assert frames.sum(1).tolist() == [19, 12]
    assert frames.shape == (2, 19)
    assert token_masks(nn.Identity(), {"image": torch.zeros(2, 3, 8, 8)}) == []
