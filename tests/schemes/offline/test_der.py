from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from instil.core import Net
from instil.functional.keyed_random import keyed_uniform
from instil.objectives.labels.cross_entropy import CrossEntropy
from instil.schemes.offline.der import DER
from instil.testing import check_scheme


def scheme(outputs: int = 3, **options: Any) -> DER:
    torch.manual_seed(0)
    return DER(Net(nn.Linear(4, outputs)), {"cross_entropy": CrossEntropy()}, **options)


def batch(seed: int = 0, size: int = 6) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "x": torch.randn(size, 4, generator=generator),
        "label": torch.arange(size) % 3,
        "index": torch.arange(size),
        "step": torch.tensor(seed),
        "seed": torch.tensor(0),
    }


def trained(der: DER, *batches: dict[str, Tensor]) -> dict[str, Tensor]:
    """Run steps without an optimizer; return the losses of the last one."""
    for one in batches:
        (update,) = der.step(one)
        der.after_step(update.state_updates)
    return update.losses


def test_contracts() -> None:
    check_scheme(scheme, lambda step: batch(step, size=16))


def test_an_empty_memory_adds_no_loss() -> None:
    der = scheme()
    der.prepare(batch())
    losses = trained(der, batch())
    counts = der.counts(batch())
    assert set(losses) == set(counts) == {"cross_entropy", "replay_logits", "replay_labels"}
    assert counts["replay_logits"] == 6
    fresh = scheme()
    fresh.prepare(batch())
    assert fresh.counts(batch())["replay_logits"] == 0
    assert trained(fresh, batch())["replay_logits"] == 0


def test_losses_are_those_of_drawn_samples_with_their_stored_logits() -> None:
    der = scheme(size=10, alpha=2.0, beta=3.0)
    der.prepare(batch())
    trained(der, batch(0))
    old = batch(0)
    stored_logits = der.student(old)["logits"].detach()
    with torch.no_grad():
        der.student.model.weight += 0.5
    now = batch(1)
    losses = trained(der, now)
    for name, factor in {"replay_logits": 2.0, "replay_labels": 3.0}.items():
        row = (keyed_uniform(now, 1, f"scheme.der.{name}")[:, 0] * 6).long()
        logits = der.student(old)["logits"][row]
        if name == "replay_logits":
            expected = (logits - stored_logits[row]).square().mean()
        else:
            expected = nn.functional.cross_entropy(logits, old["label"][row])
        assert torch.allclose(losses[name], factor * expected)


def test_new_and_stored_samples_share_one_forward_pass() -> None:
    """With BatchNorm, stored logits could not be compared with those of other statistics."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
    der = DER(Net(model, taps={"features": ["0"]}), {"cross_entropy": CrossEntropy()}, size=10)
    der.prepare(batch())
    trained(der, batch(0))
    stored = der.memory()["logits"][:6]
    rows: list[int] = []
    model[1].register_forward_hook(lambda _, inputs, output: rows.append(len(inputs[0])))
    now = batch(1)
    losses = trained(der, now)
    assert rows == [18]
    streams = [f"scheme.der.{name}" for name in ("replay_logits", "replay_labels")]
    drawn = [(keyed_uniform(now, 1, stream)[:, 0] * 6).long() for stream in streams]
    inputs = torch.cat([now["x"], *(batch(0)["x"][row] for row in drawn)])
    model.train()
    logits = model(inputs)[6:12]
    expected = der.alpha * (logits - stored[drawn[0]]).square().mean()
    assert torch.allclose(losses["replay_logits"], expected, rtol=1e-4)


def test_a_factor_of_zero_leaves_its_loss_out() -> None:
    der = scheme(beta=0.0)
    der.prepare(batch())
    assert set(trained(der, batch())) == set(der.counts(batch()))
    assert "replay_labels" not in trained(der, batch())


def test_the_next_stage_compares_the_classes_of_the_stored_logits() -> None:
    first = scheme(outputs=3)
    first.prepare(batch())
    trained(first, batch())
    second = scheme(outputs=5)
    second.set_memory(first.memory())
    second.prepare(batch())
    with torch.no_grad():
        second.student.model.weight[:3] = first.student.model.weight
        second.student.model.bias[:3] = first.student.model.bias
    # Old outputs are the same, and the two new ones do not count.
    assert float(trained(second, batch(1))["replay_logits"].detach()) < 1e-10
    assert second.memory()["width"].unique().tolist() == [0, 3, 5]


def test_samples_that_do_not_count_are_not_stored() -> None:
    der = scheme()
    part = batch() | {"valid": torch.tensor([True, True, False, True, False, False])}
    der.prepare(part)
    trained(der, part)
    assert der.memory()["seen"] == 3
    assert der.memory()["label"][:3].tolist() == [0, 1, 0]


def test_wrong_options_and_labels_are_errors() -> None:
    with pytest.raises(ValueError, match="alpha, beta: both are 0"):
        scheme(alpha=0.0, beta=0.0)
    with pytest.raises(ValueError, match="der stores one class and one vector"):
        scheme().prepare(batch() | {"label": torch.rand(6, 3)})
