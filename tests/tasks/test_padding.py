"""Losses of padded texts: padding does not count, or the loss is an error."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from instil import catalogue
from instil.core import Batch, Net
from instil.networks.encoder_decoder import encoder_decoder
from instil.networks.presets import taps_for
from instil.networks.text_transformer import text_transformer
from instil.schemes.offline.offline import Offline
from instil.tasks.bases.checks import check_compares_tokens
from instil.tasks.bases.task import Task
from instil.tasks.seq2seq import Seq2Seq
from instil.tasks.text_classification import TextClassification
from instil.teachers.frozen import Frozen
from tests.schemes.pairs import timed

LENGTHS = torch.tensor([6, 5, 4, 6, 3, 6, 5, 2])


def texts(width: int) -> Batch:
    """Texts of a classifier, padded to a width."""
    ids = torch.randint(3, 20, (8, 6), generator=torch.Generator().manual_seed(0))
    ids = torch.nn.functional.pad(ids, (0, width - 6), value=7)
    mask = (torch.arange(width) < LENGTHS[:, None]).long()
    clock = {key: timed()[key] for key in ("step", "seed", "progress") if key in timed()}
    rows = {"label": torch.arange(8) % 4, "index": torch.arange(8), "view": torch.zeros(8).long()}
    return {"input_ids": ids, "attention_mask": mask, **rows, **clock}


def pairs(width: int) -> Batch:
    """Pairs of an encoder-decoder; sources and targets are padded to a width."""
    batch = texts(width)
    batch["encoder_attention_mask"] = batch.pop("attention_mask")
    target = torch.randint(3, 20, (8, 6), generator=torch.Generator().manual_seed(1))
    target = torch.nn.functional.pad(target, (0, width - 6), value=-100)
    target = target.masked_fill(torch.arange(width) >= LENGTHS.flip(0)[:, None], -100)
    return batch | {"label": target, "valid": target != -100}


def net(task: Task, width: int) -> Net:
    torch.manual_seed(width)
    if isinstance(task, Seq2Seq):
        model = encoder_decoder(20, width=width, depth=2, heads=2)
    else:
        model = text_transformer(4, vocabulary=20, length=16, width=width, depth=2, heads=2)
    return Net(model, type(task).call, taps_for(model))


def value_of(scheme: Offline, batch: Batch) -> float:
    torch.manual_seed(0)
    (update,) = scheme.step(batch)
    (value,) = update.losses.values()
    return value.item()


def undefined(task: Task) -> Iterator[str]:
    """Losses whose value depends on the padding."""
    make = pairs if isinstance(task, Seq2Seq) else texts
    batch, wider = make(6), make(9)
    for name in catalogue.files("objective"):
        objective = catalogue.find("objective", name)()
        try:
            task.check({name: objective})
            if isinstance(task, Seq2Seq):
                check_compares_tokens({name: objective}, {"features"}, ("seq2seq",))
            scheme = Offline(net(task, 8), Frozen(net(task, 16)), {name: objective})
            scheme.prepare(batch)
            scheme.eval()
            value = value_of(scheme, batch)
        except (ValueError, RuntimeError):
            # The loss is made for other data, and an error is not silent.
            continue
        if value_of(scheme, wider) != pytest.approx(value, rel=1e-4, abs=1e-6):
            yield name


@pytest.mark.parametrize("task", [TextClassification(), Seq2Seq()], ids=lambda task: task.title)
def test_no_loss_depends_on_the_padding(task: Task) -> None:
    assert list(undefined(task)) == []


@pytest.mark.parametrize("name", ["distilbert", "tinybert", "minilm", "patient_kd"])
def test_losses_of_texts_are_defined(name: str) -> None:
    TextClassification().check({name: catalogue.find("objective", name)()})


def test_features_of_texts_are_refused() -> None:
    hint = {"hint": catalogue.find("objective", "fitnet")()}
    with pytest.raises(ValueError, match=r"objectives\.hint: FitNet compares whole samples"):
        TextClassification().check(hint)
    # Encoders of images have no padding, so that the batch decides.
    Seq2Seq().check(hint)
    relation = {"relation": catalogue.find("objective", "rkd")()}
    TextClassification().check(relation)
    with pytest.raises(ValueError, match=r"objectives\.relation: .* compares whole samples"):
        Seq2Seq().check(relation)
