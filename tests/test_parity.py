"""One batch, uneven micro-batches, uneven ranks and sharding give the same weights."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from instil import catalogue
from instil.schemes.offline.krd import KRD
from tests.parity import COUPLED, KEPT, SCHEMES, WHOLE, looped, pieces, train

TOLERANCES = {"sandwich": 1e-5}
"""Largest difference of a weight, 1e-6 for other schemes. Gradients of sandwich are sums over four
widths, whose rounding depends on the kernels of the processor."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("parity")


@pytest.fixture(scope="module")
def whole(folder: Path) -> dict[str, torch.Tensor]:
    """Train all schemes in one process with one batch; checkpoints are in ``folder``."""
    ends = {
        name: train(make, [64], save=folder / f"one_{name}.pt")
        for name, make in (SCHEMES | COUPLED).items()
    }
    return ends | {"fit": looped(pieces(), 4)}


def worst(weights: torch.Tensor, others: torch.Tensor) -> float:
    return float((weights - others).abs().max())


@pytest.mark.parametrize("name", SCHEMES)
def test_micro_batches_give_the_same_weights(name: str, whole: dict[str, torch.Tensor]) -> None:
    difference = worst(train(SCHEMES[name], [30, 3, 20, 11]), whole[name])
    assert difference < TOLERANCES.get(name, 1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["replicate", "shard"])
def test_two_uneven_ranks_give_the_same_weights(
    kind: str, whole: dict[str, torch.Tensor], folder: Path
) -> None:
    ends = on_two_ranks("tests.parity", folder / "ends.pt", kind)
    assert set(SCHEMES) | set(COUPLED) <= {*ends, *(WHOLE if kind == "shard" else ())}
    far = {}
    for name, end in ends.items():
        scheme = name.rpartition("/")[2]
        if (error := worst(end, whole[scheme])) >= TOLERANCES.get(scheme, 1e-6):
            far[name] = error
    assert not far
    for name in set(KEPT) & set(ends):
        resumed = train(SCHEMES[name], [64], resume=folder / f"two_{name}.pt")
        tolerance = TOLERANCES.get(name, 1e-6)
        assert worst(resumed, whole[name]) < tolerance, f"saved by two, gone on as one: {name}"


def test_every_scheme_is_here() -> None:
    """The objectives are, as they are found in the catalogue; a scheme that is not here is not
    known to keep the promise. A graph is one batch, which no cut goes through.
    """
    every = {catalogue.find("scheme", name) for name in catalogue.names("scheme")}
    on_edges = {KRD}
    assert every - on_edges <= {type(make()) for make in SCHEMES.values()}


def on_two_ranks(module: str, out: Path, *arguments: str) -> dict[str, torch.Tensor]:
    """Return the results of the module on two gloo processes."""
    return on_ranks(2, module, out, *arguments)


def on_ranks(size: int, module: str, out: Path, *arguments: str) -> dict[str, torch.Tensor]:
    """Return the results of the module on gloo processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    environment = os.environ | {
        "WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-m", module, str(out), *arguments]
    ranks = [
        subprocess.Popen(
            command, env=environment | {"RANK": str(rank)}, stderr=subprocess.PIPE, text=True
        )
        for rank in range(size)
    ]
    errors = [rank.communicate(timeout=600)[1] for rank in ranks]
    assert all(rank.returncode == 0 for rank in ranks), "\n".join(errors)
    return torch.load(out, weights_only=True)
