"""Time a training step of ``fit`` against a hand-written loop that does the same; both take turns,
block by block, in one process.

python benchmarks/step.py [--json] [--blocks 15]

Every ratio is ours over theirs, in processor time (other work on the machine does not count): the
median over neighbouring blocks, so that a machine that slows down slows both. ``tiny_...`` is the
same of nets so small that nearly all of a step is Python. With torchdistill installed, its KD step
is timed too.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from instil import (
    KD,
    CrossEntropy,
    FitNet,
    Frozen,
    Net,
    Objective,
    Offline,
    Optimization,
    Training,
    fit,
)
from instil.networks.presets import taps_for
from instil.networks.resnet import resnet

TEMPERATURE = 4.0
SGD = {"lr": 0.01, "momentum": 0.9, "weight_decay": 5e-4}
SIZES = {
    "ratio": {"student": 3, "teacher": 9, "width": 16, "image": 32},
    "tiny": {"student": 1, "teacher": 1, "width": 4, "image": 8},
}
Step = Callable[[Tensor, Tensor], None]


class Blocks:
    """Ours and theirs in turn: ``fit`` calls ``tick`` after each step, and every ``length`` steps
    the other side does as many.
    """

    def __init__(self, theirs: Step, batches: list[tuple[Tensor, Tensor]], length: int):
        self.theirs, self.batches, self.length = theirs, batches, length
        self.ours_seconds: list[float] = []
        self.theirs_seconds: list[float] = []
        self.taken = 0
        self.began = time.process_time()

    def tick(self, clock: Any) -> None:
        if clock.step % self.length:
            return
        now = time.process_time()
        self.ours_seconds.append(now - self.began)
        for _ in range(self.length):
            self.theirs(*self.batches[self.taken % len(self.batches)])
            self.taken += 1
        self.began = time.process_time()
        self.theirs_seconds.append(self.began - now)

    def ratio(self) -> float:
        """Median ratio over the blocks: ours over the mean of theirs before and after."""
        around = [(before + after) / 2 for before, after in pairwise(self.theirs_seconds)]
        return statistics.median(
            ours / theirs for ours, theirs in zip(self.ours_seconds[1:], around, strict=True)
        )


class Endless:
    """The batches again and again, as one epoch of ``steps``."""

    def __init__(self, batches: list[tuple[Tensor, Tensor]], steps: int):
        self.batches, self.steps = batches, steps

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return (self.batches[number % len(self.batches)] for number in range(self.steps))


def nets(size: dict[str, int]) -> tuple[nn.Module, nn.Module]:
    """Student and teacher, alike at every call."""
    torch.manual_seed(0)
    made = (resnet(100, depth=size[side], width=size["width"]) for side in ("student", "teacher"))
    return next(made), next(made)


def batches_of(size: dict[str, int], number: int = 4) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    shape = (64, 3, size["image"], size["image"])
    return [
        (torch.randn(shape, generator=generator), torch.randint(0, 100, (64,), generator=generator))
        for _ in range(number)
    ]


def plain_kd(size: dict[str, int]) -> Step:
    """What one writes without a library: cross-entropy and KD."""
    student, teacher = nets(size)
    teacher.eval().requires_grad_(False)
    optimizer = torch.optim.SGD(student.parameters(), **SGD)
    running = torch.zeros(())

    def step(image: Tensor, label: Tensor) -> None:
        nonlocal running
        with torch.no_grad():
            theirs = teacher(image)
        mine = student(image)
        soft, target = (
            F.log_softmax(mine / TEMPERATURE, -1),
            F.log_softmax(theirs / TEMPERATURE, -1),
        )
        loss = F.cross_entropy(mine, label) + TEMPERATURE**2 * F.kl_div(
            soft, target, reduction="batchmean", log_target=True
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        running = running + loss.detach()

    return step


def with_features(net: nn.Module, image: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Logits and the stages of one of our residual nets, by hand."""
    image, stages = net.stem(image), []
    for stage in net.stages:
        image = stage(image)
        stages.append(image)
    return net.head(image.mean((2, 3))), stages


def plain_kd_fitnet(size: dict[str, int]) -> Step:
    """The same with the squared difference of the three stages; equal shapes, so no adapters."""
    student, teacher = nets(size)
    teacher.eval().requires_grad_(False)
    optimizer = torch.optim.SGD(student.parameters(), **SGD)
    running = torch.zeros(())

    def step(image: Tensor, label: Tensor) -> None:
        nonlocal running
        with torch.no_grad():
            theirs, their_stages = with_features(teacher, image)
        mine, my_stages = with_features(student, image)
        soft, target = (
            F.log_softmax(mine / TEMPERATURE, -1),
            F.log_softmax(theirs / TEMPERATURE, -1),
        )
        loss = F.cross_entropy(mine, label) + TEMPERATURE**2 * F.kl_div(
            soft, target, reduction="batchmean", log_target=True
        )
        for one, other in zip(my_stages, their_stages, strict=True):
            loss = loss + F.mse_loss(one, other)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        running = running + loss.detach()

    return step


def torchdistill_kd(size: dict[str, int]) -> Step:
    """torchdistill's own box with its KD loss, of the same weights as ours."""
    from torchdistill.core.distillation import DistillationBox

    student, teacher = nets(size)
    teacher.eval()
    logits = {
        f"{side}_module_{key}": value
        for side in ("student", "teacher")
        for key, value in (("path", "head"), ("io", "output"))
    }
    kd = {
        "key": "KDLoss",
        "kwargs": logits | {"temperature": TEMPERATURE, "alpha": 1.0, "beta": 1.0},
    }
    sampler = {"class_or_func": torch.utils.data.SequentialSampler}
    hooks = {
        "forward_hook": {"input": [], "output": ["head"]},
        "wrapper": None,
        "forward_proc": "forward_batch_only",
    }
    box = DistillationBox(
        teacher,
        student,
        {"train": [(torch.zeros(3, 8, 8), 0)]},
        {
            "num_epochs": 1,
            "train_data_loader": {
                "dataset_id": "train",
                "sampler": sampler,
                "kwargs": {"batch_size": 64},
            },
            "teacher": hooks | {"requires_grad": False},
            "student": hooks | {"requires_grad": True},
            "criterion": {
                "key": "WeightedSumLoss",
                "kwargs": {"sub_terms": {"kd": {"criterion": kd, "weight": 1.0}}},
            },
            "optimizer": {"key": "SGD", "kwargs": dict(SGD)},
        },
        torch.device("cpu"),
        None,
        False,
        1,
    )
    box.teacher_model.eval()
    box.student_model.train()

    def step(image: Tensor, label: Tensor) -> None:
        loss = box.forward_process(image, label, None)
        box.post_forward_process(loss=loss)

    return step


def ours(
    size: dict[str, int], objectives: dict[str, Objective], theirs: Step, blocks: int, length: int
) -> float:
    """Ratio of ``fit``'s step to ``theirs``."""
    student, teacher = nets(size)
    tapped = "fitnet" in objectives
    taps = [{"features": taps_for(net)["features"]} if tapped else {} for net in (student, teacher)]
    scheme = Offline(Net(student, taps=taps[0]), Frozen(Net(teacher, taps=taps[1])), objectives)
    training = Training(
        steps=length * blocks, optimizer=Optimization("sgd", SGD), schedule="constant"
    )
    timed = Blocks(theirs, batches_of(size), length)
    fit(scheme, Endless(batches_of(size), length * blocks), training, on_step=timed.tick)
    return timed.ratio()


def taps_cost(size: dict[str, int], blocks: int, length: int) -> float:
    """Forward and backward of a net with three stages and the embedding tapped, over the same net,
    in the same memory, with its hooks taken out.
    """
    image = batches_of(size, 1)[0][0]
    model = nets(size)[0]
    net = Net(model, taps=taps_for(model))
    hooks = [
        (table, dict(table))
        for module in model.modules()
        for table in (module._forward_hooks, module._forward_pre_hooks)
    ]
    seconds: dict[bool, list[float]] = {True: [], False: []}
    for block in range(2 * blocks):
        tapped = bool(block % 2)
        for table, full in hooks:
            table.clear()
            table.update(full if tapped else {})
        began = time.process_time()
        for _ in range(length):
            (net({"image": image})["logits"] if tapped else model(image)).square().mean().backward()
        seconds[tapped].append(time.process_time() - began)
    return statistics.median(
        a / b for a, b in zip(seconds[True][1:], seconds[False][1:], strict=True)
    )


def measure(blocks: int, sizes: dict[str, dict[str, int]]) -> dict[str, Any]:
    """All ratios, and what they were measured on."""
    found: dict[str, Any] = {}
    for prefix, size in sizes.items():
        length = 20 if prefix == "tiny" else 2
        turns = 2 * blocks if prefix == "tiny" else blocks
        kd: dict[str, Objective] = {"cross_entropy": CrossEntropy(), "kd": KD(TEMPERATURE)}
        found[f"{prefix}_kd_to_plain"] = ours(size, kd, plain_kd(size), turns, length)
        found[f"{prefix}_kd_fitnet_to_plain"] = ours(
            size, kd | {"fitnet": FitNet()}, plain_kd_fitnet(size), turns, length
        )
        found[f"{prefix}_taps"] = taps_cost(size, 2 * turns, length // 2)
        try:
            theirs = torchdistill_kd(size)
        except ImportError:
            continue
        found[f"{prefix}_kd_to_torchdistill"] = ours(size, kd, theirs, turns, length)
    return {name: round(value, 4) for name, value in found.items()} | {
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--json", action="store_true", help="print one flat object and nothing else"
    )
    parser.add_argument("--blocks", type=int, default=15, help="pairs of blocks for each ratio")
    options = parser.parse_args()
    found = measure(options.blocks, SIZES)
    if options.json:
        print(json.dumps(found))
    else:
        for name, value in found.items():
            print(f"{name:34} {value}")


if __name__ == "__main__":
    main()
