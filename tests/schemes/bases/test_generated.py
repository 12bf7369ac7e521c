"""Memories of generated images."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from instil.core import Scheme
from instil.engine import Engine, Optimization
from instil.modules.synthetic_memory import SyntheticMemory
from instil.objectives.logits.kd import KD
from instil.schemes.data_free.dafl import DAFL
from instil.schemes.data_free.deep_inversion import DeepInversion
from instil.schemes.data_free.fast_data_free import FastDataFree
from instil.teachers.frozen import Frozen
from instil.training.batches import Batches
from instil.training.step import train_step
from tests.schemes.generator_nets import blank, classifier, maker


def dafl() -> Scheme:
    return DAFL(classifier(4), Frozen(classifier(6, 1)), {"kd": KD(1.0)}, maker(), memory=40)


def deep_inversion() -> Scheme:
    teacher = Frozen(classifier(6, 1, norm=True))
    return DeepInversion(classifier(4), teacher, {"kd": KD(1.0)}, memory=40, iterations=2)


def fast_data_free() -> Scheme:
    teacher = Frozen(classifier(6, 1, norm=True))
    return FastDataFree(classifier(4), teacher, {"kd": KD(1.0)}, maker(), memory=40, every=1)


@pytest.mark.parametrize("make", [dafl, deep_inversion, fast_data_free])
def test_images_of_an_empty_micro_batch_are_not_remembered(make: Callable[[], Scheme]) -> None:
    """A process that has run out of data repeats a micro-batch in which no item counts."""
    memories = []
    for has_empty in (False, True):
        scheme = make().train()
        scheme.prepare(blank())
        engine = Engine("cpu")
        engine.setup(scheme, lambda learner: Optimization("sgd", {"lr": 0.1}))
        for step in range(2):
            batches = [blank(step)]
            if has_empty:
                batches.append(Batches.empty_like(blank(step)))
            train_step(engine, scheme, batches)
        memories += [part for part in scheme.modules() if isinstance(part, SyntheticMemory)]
    assert [int(memory.pushed) for memory in memories] == [32, 32]
    torch.testing.assert_close(memories[0]["image"], memories[1]["image"])
