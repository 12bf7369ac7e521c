"""Random streams: no two components of a recipe draw the same numbers."""

from __future__ import annotations

import ast
import sys
from collections import Counter, defaultdict
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch

import instil
from instil.core import Batch, Objectives
from instil.functional import keyed_random
from instil.functional.keyed_random import keyed_uniform
from instil.objectives.relations.crd import CRD
from instil.schemes.offline.offline import Offline
from instil.teachers.frozen import Frozen
from tests import parity
from tests.nets import net

SOURCE = Path(instil.__file__).parent
HELPERS = ("functional/", "modules/", "generation/")
"""Files whose functions draw for a caller, which names the stream."""
BANK: dict[str, Any] = {"dim": 8, "negatives": 16, "size": 64, "memory": "bank"}
SCHEMES = {
    **parity.SCHEMES,
    **parity.COUPLED,
    "two memories": lambda: parity.on_pixels(0.1, first=CRD(**BANK), second=CRD(**BANK)),
}

Component = tuple[str, int]
"""Method that draws, and the object whose method it is."""


def component(frame: FrameType | None) -> Component:
    """The first caller that is not a helper."""
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        name = path.relative_to(SOURCE).as_posix() if path.is_relative_to(SOURCE) else path.name
        if not name.startswith(HELPERS):
            return f"{name}:{frame.f_code.co_name}", id(frame.f_locals.get("self"))
        frame = frame.f_back
    raise AssertionError("a draw without a caller")


@pytest.fixture
def draws(monkeypatch: pytest.MonkeyPatch) -> dict[str, set[Component]]:
    """Stream -> components that drew from it."""
    drawn: dict[str, set[Component]] = defaultdict(set)
    stream_key = keyed_random.stream_key

    def record(stream: str) -> int:
        drawn[stream].add(component(sys._getframe(1)))
        return int(stream_key(stream))

    monkeypatch.setattr(keyed_random, "stream_key", record)
    return drawn


@pytest.mark.parametrize("name", SCHEMES)
def test_a_stream_belongs_to_one_component(name: str, draws: dict[str, set[Component]]) -> None:
    parity.train(SCHEMES[name], [64], slice(0, 64))
    shared = {stream: sorted(users) for stream, users in draws.items() if len(users) > 1}
    assert not shared
    if name == "two memories":
        assert len(draws) == 2


def crd_scheme() -> Offline:
    objectives = Objectives({"first": CRD(**BANK), "second": CRD(**BANK)})
    return Offline(net(16, 1), Frozen(net(32, 2)), objectives)


def test_two_memories_under_different_names_draw_different_rows() -> None:
    first, second = (objective for _, objective in crd_scheme().objectives.named())
    sample_batch: Batch = {"index": torch.arange(64), "step": torch.tensor(3)}
    rows = [keyed_uniform(sample_batch, 4, f"{one.stream}.negatives") for one in (first, second)]
    assert (rows[0] == rows[1]).float().mean() < 0.01


def test_equal_recipes_draw_equal_numbers() -> None:
    one, other = (list(crd_scheme().objectives.named()) for _ in range(2))
    assert [objective.stream for _, objective in one] == [
        objective.stream for _, objective in other
    ]


def test_objectives_of_one_name_in_two_containers_have_streams_of_their_own() -> None:
    scheme = crd_scheme()
    scheme.add_module("more", Objectives({"first": CRD(dim=8, memory="batch")}))
    scheme.prepared = False
    scheme.build = lambda batch: None  # type: ignore[method-assign]
    scheme.prepare({})
    streams = [
        objective.stream
        for part in scheme.modules()
        if isinstance(part, Objectives)
        for _, objective in part.named()
    ]
    assert len(set(streams)) == 3


def literals() -> list[str]:
    """Streams of the package that are plain texts, once for each place."""
    names = []
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                names.append(node.value)
    return names


@pytest.mark.parametrize("prefix", ["data.", "store.sampled", "evaluation.", "generation.tokens"])
def test_streams_outside_of_schemes_are_used_once(prefix: str) -> None:
    streams = {"data.augmentation", "data.mixup", "data.partners"}
    streams |= {"data.surrogate_noise", "data.surrogate_blobs"}
    streams |= {"store.sampled", "evaluation.attack_start", "generation.tokens"}
    counts = Counter(literals())
    chosen = [stream for stream in streams if stream.startswith(prefix)]
    assert chosen
    assert {stream: counts[stream] for stream in chosen} == dict.fromkeys(chosen, 1)
