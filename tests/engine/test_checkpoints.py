"""Checkpoints contain everything that training changes, and are complete or absent."""

from __future__ import annotations

import copy
import errno
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from instil.core import Net, Scheme
from instil.engine import Engine, Optimization
from instil.files.checksums import DamagedFileError, append_checksum
from instil.objectives.features.fitnet import FitNet
from instil.objectives.labels.cross_entropy import CrossEntropy
from instil.objectives.logits.kd import KD
from instil.objectives.relations.crd import CRD
from instil.schemes.adversarial.adversarial import Adversarial
from instil.schemes.offline.offline import Offline
from instil.schemes.online.mutual import Mutual
from instil.schemes.self_distillation.ema import Ema
from instil.teachers.frozen import Frozen
from instil.training.step import train_step
from tests.nets import Body, batch, call, net, timed


def tapped(width: int, seed: int = 0) -> Net:
    inner = net(width, seed, dropout=0.3)
    return Net(inner.model, call, {"features": ["stem"], "embedding": "head:in"})


SCHEMES: dict[str, Callable[[], Scheme]] = {
    "adapters": lambda: Offline(tapped(4), Frozen(tapped(8, 1)), {"fitnet": FitNet(), "kd": KD()}),
    "queue": lambda: Offline(
        tapped(4), Frozen(tapped(8, 1)), {"crd": CRD(dim=4, negatives=8, size=40)}
    ),
    "bank": lambda: Offline(
        tapped(4), Frozen(tapped(8, 1)), {"crd": CRD(dim=4, negatives=8, memory="bank", size=40)}
    ),
    "ema": lambda: Ema(tapped(4), {"cross_entropy": CrossEntropy(), "kd": KD()}, 0.9),
    "mutual": lambda: Mutual(tapped(4), [tapped(6, 1)], {"fitnet": FitNet(), "kd": KD()}),
    "adversarial": lambda: Adversarial(tapped(4), Frozen(tapped(8, 1)), {"kd": KD()}),
}
OPTIMIZATIONS = {
    "sgd": Optimization("sgd", {"lr": 0.05, "momentum": 0.9}),
    "adamw": Optimization("adamw", {"lr": 0.01, "weight_decay": 0.1}),
}


def start(
    make: Callable[[], Scheme], optimization: Optimization = OPTIMIZATIONS["adamw"]
) -> tuple[Scheme, Engine]:
    torch.manual_seed(0)
    random.seed(0)
    scheme = make().train()
    scheme.prepare(batch())
    engine = Engine("cpu")
    engine.setup(scheme, lambda learner: optimization)
    return scheme, engine


def run(scheme: Scheme, engine: Engine, steps: range) -> None:
    for step in steps:
        random.random()
        train_step(engine, scheme, [timed(step), timed(step + 100)])


@pytest.mark.parametrize("name", SCHEMES)
@pytest.mark.parametrize("optimization", OPTIMIZATIONS.values(), ids=OPTIMIZATIONS)
def test_a_resumed_run_ends_as_one_that_was_not_stopped(
    name: str, optimization: Optimization, tmp_path: Path
) -> None:
    path = tmp_path / "deep" / "checkpoint.pt"
    scheme, engine = start(SCHEMES[name], optimization)
    run(scheme, engine, range(3))
    engine.save(scheme, path, {"note": {"a": [1, "b"]}})
    run(scheme, engine, range(3, 6))
    draws = torch.rand(2), random.random()

    again, other = start(SCHEMES[name], optimization)
    torch.manual_seed(7)
    random.seed(7)
    run(again, other, range(8, 9))  # the previous content is replaced
    assert other.load(again, path) == {"note": {"a": [1, "b"]}}
    run(again, other, range(3, 6))
    for (name_of, a), b in zip(
        scheme.state_dict().items(), again.state_dict().values(), strict=True
    ):
        assert torch.equal(a, b), name_of
    for learner in engine.optimizers:
        a, b = (one.optimizers[learner].state_dict() for one in (engine, other))
        assert str(a) == str(b)
    assert torch.equal(torch.rand(2), draws[0])
    assert random.random() == draws[1]


def test_what_stays_is_not_in_it_and_what_moves_is(tmp_path: Path) -> None:
    held = {}
    for name in SCHEMES:
        scheme, engine = start(SCHEMES[name])
        engine.save(scheme, tmp_path / name, {})
        held[name] = set(torch.load(tmp_path / name, weights_only=True)["scheme"])
    assert not any(
        key.startswith("teacher.")
        for name in ("adapters", "queue", "bank", "adversarial")
        for key in held[name]
    )
    assert "teacher.net.model.head.weight" in held["ema"]
    assert "peers.0.model.head.weight" in held["mutual"]
    assert "critic.0.weight" in held["adversarial"]
    assert "objectives.fitnet.adapters.0.project.weight" in held["adapters"]
    assert {"objectives.crd.remembered.student", "objectives.crd.remembered.teacher"} <= held[
        "bank"
    ]


def test_the_checkpoint_of_another_scheme(tmp_path: Path) -> None:
    scheme, engine = start(SCHEMES["queue"])
    engine.save(scheme, tmp_path / "checkpoint.pt", {})
    other, engine = start(SCHEMES["adapters"])
    before = copy.deepcopy(other.state_dict())
    with pytest.raises(
        ValueError,
        match=(
            r"checkpoint .*checkpoint\.pt is of another scheme: it differs in \d+ tensors, such as "
            r"'objectives\.crd"
        ),
    ):
        engine.load(other, tmp_path / "checkpoint.pt")
    assert all(torch.equal(value, before[name]) for name, value in other.state_dict().items())


@pytest.mark.parametrize("width", [1, 6])
def test_the_checkpoint_of_another_width(tmp_path: Path, width: int) -> None:
    """Width 1 would be copied into any other by broadcasting, without a word."""
    scheme, engine = start(lambda: Offline(net(width), None, {"cross_entropy": CrossEntropy()}))
    engine.save(scheme, tmp_path / "checkpoint.pt", {})
    other, engine = start(lambda: Offline(net(4), None, {"cross_entropy": CrossEntropy()}))
    before = copy.deepcopy(other.state_dict())
    with pytest.raises(
        ValueError,
        match=(
            rf"is of another scheme: .*'student\.model\.stem\.weight' is \({width}, 6\) there and "
            rf"\(4, 6\) here"
        ),
    ):
        engine.load(other, tmp_path / "checkpoint.pt")
    assert all(torch.equal(value, before[name]) for name, value in other.state_dict().items())


def test_a_frozen_part_of_the_student_is_in_it(tmp_path: Path) -> None:
    scheme, engine = start(lambda: Offline(net(4), None, {"cross_entropy": CrossEntropy()}))
    scheme.student.model.stem.requires_grad_(False)
    engine.save(scheme, tmp_path / "checkpoint.pt", {})
    assert (
        "student.model.stem.weight"
        in torch.load(tmp_path / "checkpoint.pt", weights_only=True)["scheme"]
    )


def full_disk(error: Exception) -> Callable[..., None]:
    """Write half of a file, then raise."""

    def save(state: Any, path: Path) -> None:
        Path(path).write_bytes(b"half")
        raise error

    return save


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        RuntimeError("PytorchStreamWriter failed writing file"),
    ],
)
def test_a_full_disk_leaves_the_last_good_one(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "checkpoint.pt"
    scheme, engine = start(SCHEMES["adapters"])
    engine.save(scheme, path, {"step": 1})
    good = path.read_bytes()
    run(scheme, engine, range(1))
    monkeypatch.setattr(torch, "save", full_disk(error))
    with pytest.raises(
        OSError,
        match=(
            r"checkpoint\.pt could not be written; the (older file is unchanged|last good one "
            r"stays)"
        ),
    ):
        engine.save(scheme, path, {"step": 2})
    assert path.read_bytes() == good
    assert [file.name for file in tmp_path.iterdir()] == ["checkpoint.pt"]
    assert engine.load(scheme, path) == {"step": 1}


def test_the_first_one_on_a_full_disk_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scheme, engine = start(SCHEMES["adapters"])
    monkeypatch.setattr(torch, "save", full_disk(OSError(errno.ENOSPC, "No space left on device")))
    with pytest.raises(OSError, match=r"the disk is full: .*checkpoint\.pt could not be written"):
        engine.save(scheme, tmp_path / "checkpoint.pt", {})
    assert list(tmp_path.iterdir()) == []


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path(self.path),)

    def __init__(self, path: Path):
        self.path = str(path)


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    scheme, engine = start(SCHEMES["adapters"])
    torch.save({"scheme": Bomb(tmp_path / "exploded")}, tmp_path / "checkpoint.pt")
    append_checksum(tmp_path / "checkpoint.pt")
    with pytest.raises(
        DamagedFileError, match=r"checkpoint\.pt: not a checkpoint \(UnpicklingError\)"
    ):
        engine.load(scheme, tmp_path / "checkpoint.pt")
    assert not (tmp_path / "exploded").exists()
    torch.load(tmp_path / "checkpoint.pt", weights_only=False)
    assert (tmp_path / "exploded").exists()  # the forged file is one


def test_nothing_of_the_state_is_shared_with_the_file(tmp_path: Path) -> None:
    scheme, engine = start(
        lambda: Offline(Net(Body(4), call), None, {"cross_entropy": CrossEntropy()})
    )
    engine.save(scheme, tmp_path / "checkpoint.pt", {})
    before = copy.deepcopy(scheme.state_dict())
    run(scheme, engine, range(2))
    engine.load(scheme, tmp_path / "checkpoint.pt")
    assert all(torch.equal(value, before[name]) for name, value in scheme.state_dict().items())
