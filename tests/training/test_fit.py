"""Training loop: evaluation, errors, and interruption at any point."""

from __future__ import annotations

import functools
import itertools
import math
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from instil.core import Batch, Net, Objective, Objectives, Outputs, Schedule, Scheme
from instil.engine import Engine, Optimization, checkpoint_timer
from instil.engine.checkpoint_timer import CheckpointTimer
from instil.engine.state import set_seed
from instil.files.checksums import append_checksum
from instil.items import Items
from instil.objectives.labels.cross_entropy import CrossEntropy
from instil.objectives.logits.dist import DIST
from instil.objectives.logits.kd import KD
from instil.objectives.relations.crd import CRD
from instil.schemes.adversarial.adversarial import Adversarial
from instil.schemes.offline.offline import Offline
from instil.schemes.self_distillation.ema import Ema
from instil.teachers.frozen import Frozen
from instil.training.fit import FitResult, Training, TrainState, fit
from tests.nets import batch, call, net

NAMES = ("x", "label", "index")


def offline(**objectives: Objective) -> Scheme:
    return Offline(
        net(4), Frozen(net(8, 1)), objectives or {"cross_entropy": CrossEntropy(), "kd": KD()}
    )


def timeless(record: dict[str, Any]) -> dict[str, Any]:
    """Return a record without measured times."""
    return record | {"seconds": 0, "speed": {}}


def batches(count: int, size: int = 4) -> list[Batch]:
    whole = batch(count * size)
    return [
        {key: value[n * size : (n + 1) * size] for key, value in whole.items()}
        for n in range(count)
    ]


def training(**options: Any) -> Training:
    merged = {
        "device": "cpu",
        "optimizer": Optimization("sgd", {"lr": 0.1, "momentum": 0.9}),
    } | options
    return Training(
        **(merged if "steps" in merged or "epochs" in merged else {"epochs": 2} | merged)
    )


def seeded(
    scheme: Callable[[], Scheme], loader: Any, options: Training, **more: Any
) -> tuple[Scheme, FitResult]:
    torch.manual_seed(0)
    result = scheme()
    return result, fit(result, loader, options, **more)


# --- settings


@pytest.mark.parametrize("options", [{}, {"epochs": 1, "steps": 2}])
def test_epochs_or_steps(options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="training needs epochs or steps, one of them"):
        Training(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"schedule": "linear"},
            "schedule: Expected cosine, constant or a TorchSchedule, got 'linear'",
        ),
        ({"accumulate": 0}, "accumulate must be at least 1, not 0"),
        ({"evaluate_every": 0}, "evaluate_every must be at least 1, not 0"),
        ({"evaluate_steps": 0}, "evaluate_steps must be at least 1, not 0"),
        ({"checkpoint_every": 0}, "checkpoint_every must be at least 1, not 0"),
        ({"steps": 0, "epochs": None}, "steps must be at least 1, not 0"),
        ({"epochs": 1.5}, "epochs: Expected a whole number, got 1.5"),
        ({"seed": "a"}, "seed: Expected a whole number, got 'a'"),
        ({"clip": -1.0}, "clip: Expected a number above 0 or None, got -1.0"),
        ({"warmup": 1.5}, "warmup is a share of the steps between 0 and 1, not 1.5"),
    ],
)
def test_numbers_that_make_no_sense(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        training(**options)


def test_an_optimizer_for_a_learner_that_there_is_not() -> None:
    scheme = Adversarial(net(4), Frozen(net(8, 1)), {"kd": KD()})
    with pytest.raises(
        ValueError,
        match=r"optimizers\.critc: Adversarial has no such learner\. Did you mean critic",
    ):
        fit(scheme, batches(2), training(optimizers={"critc": Optimization()}))


def test_an_optimizer_for_one_learner() -> None:
    scheme = Adversarial(net(4), Frozen(net(8, 1)), {"kd": KD()})
    scheme.prepare(batches(1)[0])
    before = [
        [parameter.clone() for parameter in part.parameters()]
        for part in (scheme.critic, scheme.student)
    ]  # type: ignore[union-attr]
    fit(scheme, batches(1), training(optimizers={"critic": Optimization("sgd", {"lr": 0.0})}))
    for start, part, stays in zip(
        before, (scheme.critic, scheme.student), (True, False), strict=True
    ):
        assert all(
            torch.equal(a, b) == stays for a, b in zip(start, part.parameters(), strict=True)
        )  # type: ignore[union-attr]


def test_warm_up_and_cosine() -> None:
    cosine, constant = training(warmup=0.2), training(warmup=0.2, schedule="constant")
    assert [cosine.lr_factor(p) for p in (0.0, 0.1, 0.2)] == [0.0, 0.5, 1.0]
    assert cosine.lr_factor(0.6) == pytest.approx(0.5)
    assert cosine.lr_factor(0.4) == pytest.approx(0.5 * (1 + math.cos(math.pi / 4)))
    assert cosine.lr_factor(1.0) == pytest.approx(0)
    assert [constant.lr_factor(p) for p in (0.1, 0.2, 0.9)] == [0.5, 1.0, 1.0]
    assert training(warmup=1.0).lr_factor(1.0) == pytest.approx(0)
    assert training().lr_factor(0.0) == 1.0


def test_the_rate_reaches_the_optimizer(monkeypatch: pytest.MonkeyPatch) -> None:
    rates: list[float] = []
    step = Engine.step
    monkeypatch.setattr(
        Engine,
        "step",
        lambda self, learner: (
            rates.append(self.optimizers["student"].param_groups[0]["lr"]),
            step(self, learner),
        ),
    )
    fit(offline(), batches(2), training(warmup=0.25, epochs=2))
    assert rates == pytest.approx(
        [
            0.0,
            0.1,
            0.1 * 0.5 * (1 + math.cos(math.pi / 3)),
            0.1 * 0.5 * (1 + math.cos(2 * math.pi / 3)),
        ]
    )


# --- evaluation


def test_evaluates_every_so_many_epochs_and_at_the_end() -> None:
    result = fit(
        offline(),
        batches(3),
        training(epochs=5, evaluate_every=2),
        evaluate=lambda net: {"accuracy": 0.5},
    )
    assert [(record["epoch"], record["step"]) for record in result.records] == [
        (1, 3),
        (2, 6),
        (3, 9),
        (4, 12),
        (5, 15),
    ]
    assert [record["epoch"] for record in result.records if "validation" in record] == [2, 4, 5]
    assert result.records[-1]["validation"] == {"accuracy": 0.5}
    assert set(result.records[0]["losses"]) == {"student/cross_entropy", "student/kd"}


def test_evaluates_every_so_many_steps_and_at_the_end() -> None:
    result = fit(
        offline(),
        batches(3),
        training(steps=8, evaluate_steps=4),
        evaluate=lambda net: {"accuracy": 0.5},
    )
    assert [record["step"] for record in result.records if "validation" in record] == [4, 8]


def test_stops_after_the_steps_in_the_middle_of_an_epoch() -> None:
    clocks: list[tuple[int, int, float]] = []
    fit(
        offline(),
        batches(3),
        training(steps=5),
        on_step=lambda clock: clocks.append((clock.epoch, clock.step, clock.progress)),
    )
    assert clocks == [(0, 1, 0.2), (0, 2, 0.4), (0, 3, 0.6), (1, 4, 0.8), (1, 5, 1.0)]


def test_d2_the_student_is_in_train_mode_again_after_each_evaluation_and_the_teacher_never() -> (
    None
):
    scheme, modes = offline(), []

    def evaluate(shipped: Net) -> dict[str, float]:
        assert shipped is scheme.student
        shipped.eval()
        return {}

    def tick(clock: TrainState) -> None:
        modes.append(
            (
                scheme.student.training,
                scheme.student.model.drop.training,
                scheme.teacher.net.training,
            )
        )  # type: ignore[union-attr]

    fit(scheme, batches(3), training(epochs=3, evaluate_steps=2), evaluate=evaluate, on_step=tick)
    assert modes == [(True, True, False)] * 9


def test_d2_a_student_in_eval_mode_is_trained_in_train_mode_from_the_first_step() -> None:
    scheme, modes = offline(), []
    scheme.eval()
    fit(
        scheme,
        batches(2),
        training(epochs=1),
        on_step=lambda clock: modes.append(scheme.student.model.drop.training),
    )
    assert modes == [True, True]


def test_the_schedules_of_a_batch_follow_the_clock() -> None:
    seen: list[dict[str, float]] = []

    class Sees(KD):
        def loss(self, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
            seen.append(
                {key: float(batch[key]) for key in ("step", "progress", "seed")}
                | {"temperature": self.temperature}
            )
            return super().loss(student, teacher, batch)

    fit(offline(kd=Sees(temperature=Schedule(1, 5))), batches(2), training(epochs=2, seed=3))
    assert [one["step"] for one in seen] == [0, 1, 2, 3]
    assert [one["progress"] for one in seen] == [0, 0.25, 0.5, 0.75]
    assert [one["temperature"] for one in seen] == [1, 2, 3, 4]
    assert {one["seed"] for one in seen} == {3}


def test_report_gets_each_record_and_the_net_is_the_exported_one() -> None:
    reported: list[dict[str, Any]] = []
    scheme = offline()
    result = fit(scheme, batches(2), training(), report=reported.append)
    assert reported == result.records
    assert result.net is scheme.student
    assert result.seconds > 0


# --- loaders


def test_tuples_are_named() -> None:
    tuples = [tuple(one.values()) for one in batches(2)]
    a, b = offline(), offline()
    fit(a, tuples, training(), names=NAMES)
    fit(b, batches(2), training())
    assert all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))


def test_too_many_values_in_a_tuple() -> None:
    tuples = [tuple(one.values()) for one in batches(2)]
    with pytest.raises(
        ValueError,
        match=(
            r"a batch has 3 values\. Expected a dict, or a tuple of 2 \(image, label\)\. Name all "
            r"values, for example names="
        ),
    ):
        fit(offline(), tuples, training())


def test_fewer_values_than_names_and_a_tensor_alone() -> None:
    fit(offline(kd=KD()), [one["x"] for one in batches(2)], training(), names=NAMES)


class Endless:
    def __iter__(self) -> Iterator[Batch]:
        while True:
            yield from batches(2)


def test_a_loader_without_a_length_needs_steps() -> None:
    with pytest.raises(ValueError, match="epochs: a loader without a length needs steps"):
        fit(offline(), Endless(), training())
    assert fit(offline(), Endless(), training(steps=5)).records[-1]["step"] == 5


@pytest.mark.parametrize("options", [{"epochs": 2}, {"steps": 2}])
def test_an_empty_loader(options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="the loader gives no batch"):
        fit(offline(), [], training(**options))


def test_no_epoch_at_all() -> None:
    with pytest.raises(
        ValueError, match="nothing to train: the loader gives no batch, or epochs is 0"
    ):
        fit(offline(), batches(2), training(epochs=0))


def test_a_loader_that_can_be_read_only_once() -> None:
    with pytest.raises(
        ValueError,
        match=(
            r"the loader gave no batch in epoch 1, after 3 of 6 steps; it must be possible to "
            r"iterate over it in each epoch"
        ),
    ):
        fit(offline(), iter(batches(3)), training(steps=6))


def test_a_generator_loses_no_batch() -> None:
    _, whole = seeded(offline, batches(3), training(steps=3))
    _, result = seeded(offline, (batch for batch in batches(3)), training(steps=3))
    assert result.records[-1]["losses"] == whole.records[-1]["losses"]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"scheme": torch.nn.Linear(2, 2)}, r"scheme: Expected a Scheme.*got Linear"),
        ({"training": {"epochs": 1}}, r"training: Expected a Training.*got dict"),
        ({"loader": TensorDataset(torch.zeros(4, 3))}, r"loader: a TensorDataset yields samples"),
        (
            {"loader": (torch.zeros(4, 3), torch.zeros(4, dtype=torch.int64))},
            r"loader: a tuple of samples and labels\. Expected an iterable of batches",
        ),
    ],
)
def test_an_argument_of_another_type(changed: dict[str, Any], message: str) -> None:
    arguments = {"scheme": offline(), "loader": batches(2), "training": training(), **changed}
    with pytest.raises(ValueError, match=message):
        fit(**arguments)


def test_a_checkpoint_never_replaces_a_folder_of_the_user(tmp_path: Path) -> None:
    folder = tmp_path / "results"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    for _ in range(2):
        with pytest.raises(ValueError, match=r"checkpoint: .*results is a folder with other files"):
            fit(offline(), batches(2), training(checkpoint_every=1), checkpoint=str(folder))
    assert (folder / "notes.txt").read_text() == "mine"


def test_an_evaluation_returns_metrics_by_name() -> None:
    evaluate: Any = lambda _: 0.5  # noqa: E731
    with pytest.raises(ValueError, match=r"^evaluate: Expected metrics by name, got float"):
        fit(offline(), batches(2), training(), evaluate=evaluate)


@pytest.mark.parametrize("name", ["model.pt", "model.previous.pt", "notes.txt"])
def test_a_checkpoint_never_replaces_a_file_of_the_user(name: str, tmp_path: Path) -> None:
    file = tmp_path / name
    if file.suffix == ".pt":
        torch.save(net(4).state_dict(), file)
    else:
        file.write_text("mine")
    content = file.read_bytes()
    with pytest.raises(ValueError, match=rf"^checkpoint: .*{name} is a file that no training has"):
        fit(
            offline(),
            batches(2),
            training(checkpoint_every=1),
            checkpoint=tmp_path / name.replace(".previous", ""),
        )
    assert file.read_bytes() == content


def test_the_epoch_is_told_to_the_loader() -> None:
    class Told(list[Batch]):
        epochs: list[int] = []  # noqa: RUF012

        def set_epoch(self, epoch: int) -> None:
            self.epochs.append(epoch)

    loader = Told(batches(2))
    fit(offline(), loader, training(epochs=3))
    assert loader.epochs == [0, 1, 2]


def test_the_first_look_at_the_loader_leaves_the_random_state() -> None:
    loader = DataLoader(TensorDataset(batch(8)["x"]), 4, shuffle=True)
    seen: list[Tensor] = []

    class Sees(KD):
        def loss(self, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
            seen.append(batch["x"])
            return super().loss(student, teacher, batch)

    scheme = offline(kd=Sees())
    torch.manual_seed(5)
    fit(scheme, loader, training(epochs=1), names=NAMES)
    torch.manual_seed(5)
    assert all(torch.equal(x, expected[0]) for x, expected in zip(seen, loader, strict=True))


# --- micro-batches


@pytest.mark.parametrize("count", [4, 5])
def test_accumulated_batches_are_one_batch_also_where_some_are_left_over(count: int) -> None:
    def joined(parts: list[Batch]) -> Batch:
        return {key: torch.cat([part[key] for part in parts]) for key in parts[0]}

    small = batches(count)
    a, b = offline(), offline()
    result = fit(a, small, training(accumulate=2))
    fit(b, [joined(small[i : i + 2]) for i in range(0, count, 2)], training())
    assert result.records[-1]["step"] == 2 * math.ceil(count / 2)
    for x, y in zip(a.parameters(), b.parameters(), strict=True):
        assert torch.allclose(x, y, atol=1e-6)


def test_what_couples_is_not_cut_unknowingly() -> None:
    with pytest.raises(
        ValueError,
        match=(
            r"objectives\.dist: its items depend on the whole batch, which accumulate=2 would cut; "
            r"set accumulate to 1, or allow_coupled_cut"
        ),
    ):
        fit(offline(dist=DIST()), batches(2), training(accumulate=2))
    fit(offline(dist=DIST()), batches(2), training(accumulate=2, allow_coupled_cut=True))
    fit(offline(dist=DIST()), batches(2), training())


# --- errors


class Spoiled(Objective):
    items = Items(labelled=True)
    """Not a number at one step."""

    card = KD.card
    needs = {"student": (("logits",),), "teacher": ()}  # noqa: RUF012

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        return student["logits"].sum(1).square() * (math.nan if int(batch["step"]) == 5 else 1.0)


def test_a_loss_that_is_not_a_number_stops_the_run_and_the_last_good_checkpoint_can_be_loaded(
    tmp_path: Path,
) -> None:
    path, ticks = tmp_path / "checkpoint.pt", []
    with pytest.raises(
        RuntimeError, match=r"step 5: loss 'student/bad' is nan; batch indices: 4, 5, 6, 7$"
    ):
        fit(
            offline(bad=Spoiled()),
            batches(4),
            training(epochs=3, checkpoint_every=1),
            checkpoint=path,
            on_step=lambda clock: ticks.append(clock.step),
        )
    assert ticks[-1] <= 6
    state = torch.load(path, weights_only=True)
    assert state["extra"]["clock"]["step"] == 4
    assert all(torch.isfinite(value).all() for value in state["scheme"].values())
    result = fit(offline(bad=CrossEntropy()), batches(4), training(epochs=3), checkpoint=path)
    assert result.records[-1]["step"] == 12


def test_in_the_last_step_too(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="step 5: loss 'student/bad' is nan"):
        fit(
            offline(bad=Spoiled()),
            batches(3),
            training(checkpoint_every=1),
            checkpoint=tmp_path / "checkpoint.pt",
        )
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["extra"]["clock"]["step"] == 3


def interrupt(at: int) -> Callable[[TrainState], None]:
    def tick(clock: TrainState) -> None:
        if clock.step == at:
            raise KeyboardInterrupt

    return tick


class Dropping:
    """Schemes with dropout on a shuffled loader of torch."""

    def __init__(self, kind: str):
        self.kind = kind

    def __call__(self) -> Scheme:
        student, goals = net(8, dropout=0.5), {"cross_entropy": CrossEntropy(), "kd": KD()}
        if self.kind == "ema":
            return Ema(student, goals, decay=0.9)
        if self.kind == "adversarial":
            return Adversarial(student, Frozen(net(8, 1)), goals)
        if self.kind == "crd":
            return Offline(
                student,
                Frozen(net(8, 1)),
                goals | {"crd": CRD(dim=4, negatives=8, memory="bank", size=24)},
            )
        weights = {"kd": Schedule(0, 1, until=0.5)}
        return Offline(student, Frozen(net(8, 1)), Objectives(goals, weights))


@pytest.mark.parametrize("generator", [False, True])
@pytest.mark.parametrize("kind", ["offline", "ema", "adversarial", "crd"])
def test_a_run_that_was_stopped_ends_bit_for_bit_as_one_that_was_not(
    kind: str, generator: bool, tmp_path: Path
) -> None:
    whole = batch(24)

    def loader() -> DataLoader[Any]:
        own = torch.Generator().manual_seed(1) if generator else None
        return DataLoader(TensorDataset(*whole.values()), 5, shuffle=True, generator=own)

    options = training(
        epochs=4, accumulate=2, clip=1.0, checkpoint_every=1, warmup=0.2, evaluate_steps=2
    )

    def evaluate(shipped: Net) -> dict[str, float]:
        shipped.eval()
        with torch.no_grad():
            return {"loss": float(shipped(whole)["logits"].square().mean())}

    more: dict[str, Any] = {"names": NAMES, "evaluate": evaluate}
    scheme, straight = seeded(Dropping(kind), loader(), options, **more)
    path = tmp_path / "checkpoint.pt"
    with pytest.raises(KeyboardInterrupt):
        seeded(Dropping(kind), loader(), options, checkpoint=path, on_step=interrupt(8), **more)
    names = {file.name for file in tmp_path.iterdir()}
    assert names == {"checkpoint.pt", "checkpoint.previous.pt"}
    assert torch.load(path, weights_only=True)["extra"]["clock"]["step"] == 6
    torch.manual_seed(99)
    again = Dropping(kind)()
    states: list[dict[str, Any]] = []
    resumed = fit(again, loader(), options, checkpoint=path, report=states.append, **more)
    for (name, a), b in zip(scheme.state_dict().items(), again.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    assert [timeless(record) for record in resumed.records] == [
        timeless(record) for record in straight.records
    ]
    assert states == resumed.records


def shuffled(generator: bool) -> DataLoader[Any]:
    """Return five batches of 24 samples, in another order each epoch."""
    own = torch.Generator().manual_seed(1) if generator else None
    return DataLoader(TensorDataset(*batch(24).values()), 5, shuffle=True, generator=own)


class Noisy(TensorDataset):
    """Samples with noise from a global generator, as transforms of other libraries draw it."""

    def __init__(self, draw: Callable[[], float]):
        super().__init__(*batch(24).values())
        self.draw = draw

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        first, *rest = super().__getitem__(index)
        return (first + self.draw(), *rest)


@pytest.mark.parametrize("draw", [random.random, np.random.standard_normal])
def test_random_numbers_of_python_and_numpy_continue(draw: Any, tmp_path: Path) -> None:
    options, path = training(**WITHIN), tmp_path / "checkpoint.pt"
    set_seed(0)
    scheme = offline()
    loader = DataLoader(Noisy(draw), 5)
    fit(scheme, loader, options, names=NAMES)
    set_seed(0)
    more: dict[str, Any] = {"names": NAMES, "checkpoint": path}
    with pytest.raises(KeyboardInterrupt):
        fit(offline(), loader, options, on_step=interrupt(6), **more)
    set_seed(99)
    again = offline()
    fit(again, loader, options, **more)
    for (name, a), b in zip(scheme.state_dict().items(), again.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


WITHIN = {"epochs": 4, "accumulate": 2, "warmup": 0.2, "checkpoint_steps": 4}
"""Three steps an epoch: checkpoints after one step of the second epoch and two of the third."""


@pytest.mark.parametrize("generator", [False, True])
@pytest.mark.parametrize("kind", ["offline", "ema", "adversarial", "crd"])
@pytest.mark.parametrize("at", [5, 7, 9, 11])
def test_a_run_that_was_stopped_within_an_epoch_is_resumed_bit_for_bit(
    at: int, kind: str, generator: bool, tmp_path: Path
) -> None:
    """Weights, order of the samples, dropout and the mean losses of the epoch that was cut."""
    options, path = training(**WITHIN), tmp_path / "checkpoint.pt"
    scheme, straight = seeded(Dropping(kind), shuffled(generator), options, names=NAMES)
    more: dict[str, Any] = {"names": NAMES, "checkpoint": path}
    with pytest.raises(KeyboardInterrupt):
        seeded(Dropping(kind), shuffled(generator), options, on_step=interrupt(at), **more)
    clock = torch.load(path, weights_only=True)["extra"]["clock"]
    assert (clock["step"], clock["epoch_step"]) == ((4, 1) if at < 9 else (8, 2))
    torch.manual_seed(99)
    again = Dropping(kind)()
    resumed = fit(again, shuffled(generator), options, **more)
    for (name, a), b in zip(scheme.state_dict().items(), again.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    records = [[timeless(record) for record in one.records] for one in (straight, resumed)]
    assert records[0] == records[1]


@pytest.mark.parametrize("kind", ["offline", "ema"])
@pytest.mark.parametrize("minutes", [1.5, 2.5])
@pytest.mark.parametrize("at", [4, 5, 8, 10])
def test_a_run_with_checkpoints_by_the_clock_is_resumed_bit_for_bit(
    at: int, minutes: float, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three steps an epoch, of one minute each. With 2.5 minutes checkpoints end the epochs."""
    seconds = itertools.count(step=60)
    timer = functools.partial(CheckpointTimer, clock=lambda: float(next(seconds)))
    monkeypatch.setattr("instil.training.run.CheckpointTimer", timer)
    options = training(epochs=4, accumulate=2, warmup=0.2, checkpoint_minutes=minutes)
    path = tmp_path / "checkpoint.pt"
    scheme, straight = seeded(Dropping(kind), shuffled(True), options, names=NAMES)
    more: dict[str, Any] = {"names": NAMES, "checkpoint": path}
    with pytest.raises(KeyboardInterrupt):
        seeded(Dropping(kind), shuffled(True), options, on_step=interrupt(at), **more)
    interval = 2 if minutes == 1.5 else 3
    step = torch.load(path, weights_only=True)["extra"]["clock"]["step"]
    assert step == (at - 1) // interval * interval
    torch.manual_seed(99)
    again = Dropping(kind)()
    resumed = fit(again, shuffled(True), options, **more)
    for (name, a), b in zip(scheme.state_dict().items(), again.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    records = [[timeless(record) for record in one.records] for one in (straight, resumed)]
    assert records[0] == records[1]


def test_several_ranks_look_at_the_clock_rarely_and_in_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks = []

    def sent(answer: tuple[bool, int]) -> tuple[bool, int]:
        looks.append(answer)
        return answer

    monkeypatch.setattr(checkpoint_timer, "world_size", lambda: 2)
    monkeypatch.setattr(checkpoint_timer, "broadcast_object", sent)
    seconds = [0.0]
    timer = CheckpointTimer(10, lambda: seconds[0])
    due = []
    for step in range(1, 1301):
        seconds[0] = float(step)
        if timer.is_due():
            due.append(step)
            timer.restart()
    assert due == [600, 1200]
    assert len(looks) < 40


def test_a_run_of_one_epoch_has_checkpoints(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    with pytest.raises(KeyboardInterrupt):
        fit(
            offline(),
            batches(6),
            training(epochs=1, checkpoint_steps=2),
            checkpoint=path,
            on_step=interrupt(3),
        )
    assert torch.load(path, weights_only=True)["extra"]["clock"]["step"] == 2


@pytest.fixture
def stopped(tmp_path: Path) -> tuple[Path, dict[str, torch.Tensor]]:
    """Return a checkpoint, the one before, and the weights of an uninterrupted run."""
    options, path = training(**WITHIN), tmp_path / "checkpoint.pt"
    scheme, _ = seeded(Dropping("ema"), shuffled(True), options, names=NAMES)
    with pytest.raises(KeyboardInterrupt):
        seeded(
            Dropping("ema"),
            shuffled(True),
            options,
            on_step=interrupt(9),
            names=NAMES,
            checkpoint=path,
        )
    return path, scheme.state_dict()


def resumed_from(path: Path) -> dict[str, torch.Tensor]:
    scheme, _ = seeded(
        Dropping("ema"), shuffled(True), training(**WITHIN), names=NAMES, checkpoint=path
    )
    return scheme.state_dict()


def flip(path: Path, bit: int) -> None:
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


@pytest.mark.parametrize("both", [False, True])
def test_no_flipped_bit_of_a_checkpoint_changes_the_result(
    both: bool, stopped: tuple[Path, dict[str, torch.Tensor]], caplog: pytest.LogCaptureFixture
) -> None:
    """A damaged checkpoint is not used: the one before it is, or the training starts again."""
    path, expected = stopped
    before = path.with_name("checkpoint.previous.pt")
    contents = {file: file.read_bytes() for file in (path, before)}
    for bit in random.Random(0).sample(range(8 * path.stat().st_size), 12):
        for file, content in contents.items():
            file.write_bytes(content)
        flip(path, bit)
        if both:
            flip(before, bit % (8 * before.stat().st_size))
        caplog.clear()
        state = resumed_from(path)
        assert all(torch.equal(value, state[name]) for name, value in expected.items())
        words = "starts from the beginning" if both else "continues from the checkpoint before it"
        assert (
            "checkpoint.pt: the file is damaged" in caplog.text or "has no checksum" in caplog.text
        )
        assert words in caplog.text


@pytest.mark.parametrize("content", [b"", bytes(400), b"PK" * 200])
def test_a_checkpoint_that_is_none_is_named_and_passed_over(
    content: bytes,
    stopped: tuple[Path, dict[str, torch.Tensor]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    path, expected = stopped
    path.write_bytes(content)
    state = resumed_from(path)
    assert all(torch.equal(value, state[name]) for name, value in expected.items())
    assert "checkpoint.pt: the file is cut off or has no checksum" in caplog.text


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda state: state["extra"].pop("clock"), "'clock' or 'records' are not those"),
        (lambda state: state.pop("optimizers"), "optimizers: Field required"),
        (lambda state: state.update(more=1), "more: Extra inputs"),
        (lambda state: state["extra"]["clock"].update(hour=3), "'clock' or 'records'"),
    ],
)
def test_other_contents_of_a_checkpoint_are_one_clear_error(
    spoil: Callable[[dict[str, Any]], object],
    message: str,
    stopped: tuple[Path, dict[str, torch.Tensor]],
) -> None:
    path, _ = stopped
    state = torch.load(path, weights_only=True)
    spoil(state)
    torch.save(state, path)
    append_checksum(path)
    with pytest.raises(ValueError, match=rf"checkpoint\.pt: .*{message}.*Delete it"):
        resumed_from(path)


def test_a_run_that_was_done_is_not_run_again(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    scheme, done = seeded(offline, batches(2), training(checkpoint_every=1), checkpoint=path)
    again = offline()
    result = fit(
        again,
        batches(2),
        training(checkpoint_every=1),
        checkpoint=path,
        on_step=lambda clock: pytest.fail("a step"),
    )
    assert result.records == done.records
    assert all(
        torch.equal(a, b) for a, b in zip(scheme.parameters(), again.parameters(), strict=True)
    )


def test_the_last_epoch_is_kept_also_where_it_is_none_of_those_to_keep(tmp_path: Path) -> None:
    fit(
        offline(),
        batches(2),
        training(epochs=5, checkpoint_every=3),
        checkpoint=tmp_path / "checkpoint.pt",
    )
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["extra"]["clock"]["epoch"] == 5


def test_the_checkpoint_of_a_longer_run(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    fit(offline(), batches(2), training(epochs=3, checkpoint_every=1), checkpoint=path)
    with pytest.raises(ValueError, match="is of a run of 6 steps, this one has 4"):
        fit(offline(), batches(2), training(epochs=2), checkpoint=path)


def test_without_checkpoint_every_nothing_is_written(tmp_path: Path) -> None:
    fit(offline(), batches(2), training(), checkpoint=tmp_path / "checkpoint.pt")
    assert list(tmp_path.iterdir()) == []


# --- options


def test_compiled_gives_the_same_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Net] = []
    monkeypatch.setattr(Net, "compile", lambda self, *args, **kwargs: calls.append(self))
    scheme = offline()
    fit(scheme, batches(1), training(compile=True))
    assert calls == [scheme.student, scheme.teacher.net]  # type: ignore[union-attr]


def test_trains_in_half_precision() -> None:
    result = fit(offline(), batches(4, 16), training(epochs=15, precision="bfloat16"))
    first, last = (sum(result.records[i]["losses"].values()) for i in (0, -1))
    assert last < 0.9 * first
    assert next(result.net.parameters()).dtype == torch.float32


def test_a_net_without_a_scheme_of_its_own_learns() -> None:
    whole = batch(64)
    whole["label"] = (whole["x"][:, 0] > 0).long()
    scheme = Offline(Net(net(16).model, call), None, {"cross_entropy": CrossEntropy()})
    result = fit(scheme, [whole], training(epochs=60, optimizer=Optimization("adam", {"lr": 0.02})))
    assert (result.net.eval()(whole)["logits"].argmax(1) == whole["label"]).float().mean() > 0.95
