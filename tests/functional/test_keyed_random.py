"""Draws per sample depend on seed, step, sample and stream only."""

from __future__ import annotations

import hashlib

import pytest
import torch

from instil.core import Batch
from instil.functional.keyed_random import keyed_uniform


def batch(size: int = 1000, step: int = 0, seed: int = 0) -> Batch:
    return {"index": torch.arange(size), "step": torch.tensor(step), "seed": torch.tensor(seed)}


def test_in_range_and_uniform() -> None:
    draws = keyed_uniform(batch(20_000), 8, "stream")
    assert draws.shape == (20_000, 8)
    assert draws.dtype == torch.float32
    assert 0 <= float(draws.min()) < 1e-4
    assert 1 - 1e-4 < float(draws.max()) < 1
    share = torch.histc(draws, 20, 0, 1) / draws.numel()
    assert (share - 1 / 20).abs().max() < 2e-3
    assert float(draws.var()) == pytest.approx(1 / 12, rel=0.01)


def test_columns_neighbours_and_steps_do_not_correlate() -> None:
    draws = keyed_uniform(batch(20_000), 4, "stream")
    others = [
        draws[:, 1],
        draws[1:, 0],
        keyed_uniform(batch(20_000, step=1), 1, "stream")[:, 0],
        keyed_uniform(batch(20_000, seed=1), 1, "stream")[:, 0],
    ]
    for other in others:
        assert abs(float(torch.corrcoef(torch.stack([draws[: len(other), 0], other]))[0, 1])) < 0.03


def test_does_not_depend_on_cut_or_order() -> None:
    whole = keyed_uniform(batch(), 3, "stream")
    order = torch.randperm(1000, generator=torch.Generator().manual_seed(0))
    clock = {key: value for key, value in batch().items() if key != "index"}
    assert torch.equal(keyed_uniform({"index": order} | clock, 3, "stream"), whole[order])
    assert torch.equal(
        torch.cat(
            [
                keyed_uniform({"index": part} | clock, 3, "stream")
                for part in torch.arange(1000).split([1, 600, 399])
            ]
        ),
        whole,
    )


def test_more_columns_do_not_change_the_first() -> None:
    assert torch.equal(
        keyed_uniform(batch(), 5, "stream")[:, :2], keyed_uniform(batch(), 2, "stream")
    )


@pytest.mark.parametrize(
    ("step", "seed", "stream"),
    [
        (1, 0, "stream"),
        (0, 1, "stream"),
        (0, 0, "other"),
        (10**6, 0, "stream"),
        (0, 2**31, "stream"),
    ],
)
def test_differs_by_step_seed_and_stream(step: int, seed: int, stream: str) -> None:
    first = keyed_uniform(batch(), 2, "stream")
    second = keyed_uniform(batch(step=step, seed=seed), 2, stream)
    assert (first == second).float().mean() < 0.01


def test_streams_do_not_correlate() -> None:
    draws = [keyed_uniform(batch(20_000), 1, f"stream {i}")[:, 0] for i in range(5)]
    off_diagonal = torch.corrcoef(torch.stack(draws)) - torch.eye(5)
    assert off_diagonal.abs().max() < 0.03


def test_no_draw_of_a_million_samples_comes_too_often() -> None:
    draws = (keyed_uniform(batch(1_000_000), 1, "stream") * 2**24).long().unique()
    assert len(draws) == pytest.approx(2**24 * (1 - (1 - 2**-24) ** 1_000_000), rel=2e-3)


def test_leaves_the_random_state() -> None:
    before = torch.get_rng_state()
    keyed_uniform(batch(), 4, "stream")
    assert torch.equal(before, torch.get_rng_state())


def test_recorded_numbers() -> None:
    """splitmix64 in plain Python."""
    mask = 2**64 - 1
    stream = int.from_bytes(hashlib.blake2b(b"crd.negatives", digest_size=8).digest(), "little")
    moment = (5 * 0xD1342543DE82EF95 + 7 * 1_000_003 + stream) * 0x94D049BB133111EB & mask
    expected = []
    for index in (0, 3, 10**9):
        x = (index * 0x9E3779B97F4A7C15 + 1 * 0xBF58476D1CE4E5B9 + moment) & mask
        x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 & mask
        x = (x ^ (x >> 27)) * 0x94D049BB133111EB & mask
        expected.append(((x >> 11) & (2**24 - 1)) / 2**24)
    inputs = {
        "index": torch.tensor([0, 3, 10**9]),
        "step": torch.tensor(7),
        "seed": torch.tensor(5),
    }
    assert keyed_uniform(inputs, 2, "crd.negatives")[:, 1].tolist() == expected


def test_needs_index() -> None:
    with pytest.raises(
        ValueError, match="per-sample randomness needs 'index' in the batch, which has x, step"
    ):
        keyed_uniform({"x": torch.zeros(2), "step": torch.tensor(0)}, 1, "stream")
