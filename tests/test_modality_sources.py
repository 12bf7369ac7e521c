"""Data sources of ``benchmarks/modalities`` whose samples no earlier search evaluated."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from instil.data.link_samples import Links
from instil.data.samples import Samples, TensorData
from instil.data.sources.graph_links import graph_links

FOLDER = Path(__file__).parents[1] / "benchmarks" / "modalities"
EDGES: dict[str, Any] = {"edges": ["edge_index"], "hops": 1, "negatives": 1, "nearby": 1}


@pytest.fixture
def sources(monkeypatch: pytest.MonkeyPatch) -> dict[str, ModuleType]:
    """Modules of the folder by name."""
    monkeypatch.syspath_prepend(str(FOLDER))
    import graph_sources
    import mnist_sources

    return {"graph": graph_sources, "mnist": mnist_sources}


def edges_of(samples: Samples) -> set[tuple[int, ...]]:
    """Evaluated edges; an edge is the first pair of two samples."""
    assert isinstance(samples, Links)
    pairs: Tensor = samples.tensors["pair_index"][:, :2]
    return set(map(tuple, pairs.sort(1).values.tolist()))


def test_evaluated_edges_were_training_edges_of_the_earlier_searches(
    sources: dict[str, ModuleType], tmp_path: Path
) -> None:
    generator = np.random.default_rng(0)
    chosen = generator.permutation([(i, j) for i in range(40) for j in range(i)])[:200]
    file = str(tmp_path / "graph.npz")
    np.savez(file, x=generator.random((40, 3), np.float32), edge_index=chosen.T)
    earlier = graph_links(file, validation=0.06, eval_negatives=5, **EDGES)
    later = sources["graph"].unseen_links(file, **EDGES)
    evaluated = edges_of(earlier.validation) | edges_of(earlier.test)
    validation, test = edges_of(later.validation), edges_of(later.test)
    assert (len(validation), len(test)) == (12, 20)
    assert not validation & test
    assert not (validation | test) & evaluated


def test_evaluated_clips_are_other_digits_with_other_noise(
    sources: dict[str, ModuleType], tmp_path: Path
) -> None:
    # The content of an image is its row, so that a clip shows which digit it has.
    rows = np.arange(10_000)
    images = np.zeros((10_000, 28, 28), np.uint8)
    images[:, 10:18, 10:18] = (rows // 100)[:, None, None] + 100
    np.savez(tmp_path / "mnist10k.npz", images=images, labels=rows % 10)
    earlier = sources["mnist"].clips(str(tmp_path), 0, 10, noise=0.0)
    later = sources["mnist"].unseen_clips(str(tmp_path), 9990, 10_000, noise=0.0)
    brightness = {
        name: {split: _brightest(getattr(data, split)) for split in ("validation", "test")}
        for name, data in (("earlier", earlier), ("later", later))
    }
    assert brightness == {
        "earlier": {"validation": set(range(70, 80)), "test": set(range(80, 100))},
        "later": {"validation": set(range(10)), "test": set(range(10, 30))},
    }
    noisy = sources["mnist"].clips(str(tmp_path), 0, 10).train
    other = sources["mnist"].unseen_clips(str(tmp_path), 0, 10).train
    assert not torch.equal(noisy.tensors["video"], other.tensors["video"])


def _brightest(samples: TensorData) -> set[int]:
    """Hundreds of the rows of the digits in clips."""
    level = samples.tensors["video"].flatten(1).amax(1) * 255 - 100
    return {int(value) for value in level.round().tolist()}
