"""Batches of transformers' collators: losses equal those of separate texts."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from instil.core import Batch
from instil.integrations import DistillationLoss
from instil.tasks.bases.causal_batch import causal_batch
from tests.students.nets import llama

TEXTS = torch.randint(1, 23, (18,), generator=torch.Generator().manual_seed(0)).split([5, 9, 4])


def expected(net: Any) -> float:
    """Mean loss of the tokens of all texts, one text at a time."""
    total = 0.0
    with torch.no_grad():
        for text in TEXTS:
            logits = net(input_ids=text[None]).logits[0, :-1]
            total += float(F.cross_entropy(logits, text[1:], reduction="sum"))
    return total / sum(len(text) - 1 for text in TEXTS)


def loss_of(batch: Batch, net: Any) -> float:
    distillation = DistillationLoss(
        copy.deepcopy(net), net, {"cross_entropy": 1.0}, batch, task="language"
    )
    return distillation(batch).loss.item()


def flattened() -> Batch:
    """One row with all texts, as ``DataCollatorWithFlattening`` returns it."""
    positions = torch.cat([torch.arange(len(text)) for text in TEXTS])
    ids = torch.cat(TEXTS)
    labels = ids.masked_fill(positions == 0, -100)
    return {"input_ids": ids[None], "labels": labels[None], "position_ids": positions[None]}


@pytest.mark.parametrize("with_mask", [False, True])
@pytest.mark.parametrize("with_first", [False, True])
def test_texts_of_a_flattened_row_do_not_see_one_another(with_mask: bool, with_first: bool) -> None:
    net = llama()
    batch = flattened()
    if with_mask:
        batch["attention_mask"] = torch.ones_like(batch["input_ids"])
    if with_first:
        # The first token of a text is not predicted from the text before it.
        batch["labels"] = batch["input_ids"]
    assert loss_of(batch, net) == pytest.approx(expected(net), rel=1e-5)


def test_the_collator_of_transformers() -> None:
    transformers = pytest.importorskip("transformers")
    rows = [{"input_ids": text.tolist()} for text in TEXTS]
    batch = transformers.DataCollatorWithFlattening(return_tensors="pt")(rows)
    assert torch.equal(batch["position_ids"], flattened()["position_ids"])
    net = llama()
    assert loss_of(dict(batch), net) == pytest.approx(expected(net), rel=1e-5)


@pytest.mark.parametrize("padding_position", [0, 1])
def test_padding_on_the_left(padding_position: int) -> None:
    ids = torch.zeros(3, 9, dtype=torch.int64)
    mask = torch.zeros_like(ids)
    labels = torch.full_like(ids, -100)
    for row, text in enumerate(TEXTS):
        ids[row, -len(text) :] = labels[row, -len(text) :] = text
        mask[row, -len(text) :] = 1
    positions = (mask.cumsum(1) - 1).masked_fill(mask == 0, padding_position)
    batch = {"input_ids": ids, "attention_mask": mask, "labels": labels, "position_ids": positions}
    net = llama()
    assert loss_of(batch, net) == pytest.approx(expected(net), rel=1e-5)
    assert torch.equal(causal_batch(batch)["attention_mask"], mask)


def test_plain_positions_change_nothing() -> None:
    positions = torch.arange(3, 7)[None]
    batch = {"input_ids": torch.ones(1, 4, dtype=torch.int64), "position_ids": positions}
    assert causal_batch(batch) is batch
