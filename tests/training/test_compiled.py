"""Compiled networks: the losses of eager ones, whole graphs, and few compilations."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters

from instil.core import Net
from tests.experiment.small import lines, recipe, run_of
from tests.networks.sources.folders import language_recipe, write_chat, write_model

STEPS = ("train.epochs=null", "train.steps=4")
INDUCTOR = pytest.param(
    "inductor",
    marks=[
        pytest.mark.slow,
        pytest.mark.skipif(shutil.which("g++") is None, reason="needs a compiler of C++"),
        # Of torch itself, where there is no GPU.
        pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    ],
)


@pytest.fixture(autouse=True)
def _compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("INSTIL_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def losses(*changes: str, is_compiled: bool, **sections: Any) -> list[float]:
    """Train a recipe and return the losses of its steps."""
    out = Path(f"compiled-{is_compiled}")
    option = f"train.compile={str(is_compiled).lower()}"
    run_of(recipe(*changes, option, "seeds=[0]", "baselines=[]", **sections), out)
    records = [line["losses"] for line in lines(out) if line["arm"] == "distilled"]
    values: list[float] = []
    for record in records:
        values += record.values()
    return values


def check(backend: str, monkeypatch: pytest.MonkeyPatch, *changes: str, **sections: Any) -> None:
    """Compare the losses with and without compilation."""
    eager = losses(*changes, is_compiled=False, **sections)
    assert not counters["frames"]
    compiled_nets = []

    def compiles(net: Net) -> None:
        compiled_nets.append(net)
        nn.Module.compile(net, backend=backend)

    monkeypatch.setattr(Net, "compile", compiles)
    compiled = losses(*changes, is_compiled=True, **sections)
    assert len(compiled_nets) >= 2
    assert compiled == pytest.approx(eager, rel=1e-4)
    assert not counters["graph_break"]
    # Student and teacher, with and without gradients, and batches of two sizes.
    assert 2 <= counters["frames"]["ok"] == counters["frames"]["total"] <= 8


@pytest.mark.parametrize("backend", ["aot_eager", INDUCTOR])
def test_an_image_recipe(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    check(backend, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["aot_eager", INDUCTOR])
def test_a_language_recipe_is_not_compiled_for_each_generated_token(
    backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limit of recompilations is 8; texts of the evaluation had reached it."""
    write_chat(Path("chat.jsonl"))
    write_model(Path("teacher"), "llama")
    sections = language_recipe(
        teacher={"model": "transformers:teacher"},
        student={"model": "transformers:teacher", "changes": {"depth": {"layers": 1}}},
    )
    check(backend, monkeypatch, *STEPS, **sections)
