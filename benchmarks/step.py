"""Time of a training step of ``fit`` relative to a hand-written loop.

python benchmarks/step.py [--json] [--blocks 15]

Both loops compute the same and take turns, block by block, in one process. A ratio is the processor
time of ``fit`` divided by that of the other loop, as a median over neighbouring blocks, so a slow
phase of the machine affects both. In ``tiny_...`` the networks are so small that Python dominates.
If torchdistill is installed, its KD step is timed too.
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
    """Alternating blocks of two loops.

    ``fit`` calls ``tick`` after each step. After every ``length`` steps of ``fit``, the reference
    loop runs the same number of steps.
    """

    def __init__(self, reference_step: Step, batches: list[tuple[Tensor, Tensor]], length: int):
        self.reference_step, self.batches, self.length = reference_step, batches, length
        self.fit_seconds: list[float] = []
        self.reference_seconds: list[float] = []
        self.num_steps = 0
        self.start = time.process_time()

    def tick(self, clock: Any) -> None:
        if clock.step % self.length:
            return
        now = time.process_time()
        self.fit_seconds.append(now - self.start)
        for _ in range(self.length):
            self.reference_step(*self.batches[self.num_steps % len(self.batches)])
            self.num_steps += 1
        self.start = time.process_time()
        self.reference_seconds.append(self.start - now)

    def ratio(self) -> float:
        """Return the median over the blocks of ``fit`` over the mean reference before and after."""
        around = [(before + after) / 2 for before, after in pairwise(self.reference_seconds)]
        return statistics.median(
            own / other for own, other in zip(self.fit_seconds[1:], around, strict=True)
        )


class Endless:
    """Loader that repeats the batches in one epoch of ``steps``."""

    def __init__(self, batches: list[tuple[Tensor, Tensor]], steps: int):
        self.batches, self.steps = batches, steps

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return (self.batches[index % len(self.batches)] for index in range(self.steps))


def nets(size: dict[str, int]) -> tuple[nn.Module, nn.Module]:
    """Return student and teacher; every call returns equal weights."""
    torch.manual_seed(0)
    networks = (
        resnet(100, depth=size[side], width=size["width"]) for side in ("student", "teacher")
    )
    return next(networks), next(networks)


def batches_of(size: dict[str, int], count: int = 4) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    shape = (64, 3, size["image"], size["image"])
    return [
        (torch.randn(shape, generator=generator), torch.randint(0, 100, (64,), generator=generator))
        for _ in range(count)
    ]


def plain_kd(size: dict[str, int]) -> Step:
    """Return the step of a hand-written loop with cross-entropy and KD."""
    student, teacher = nets(size)
    teacher.eval().requires_grad_(False)
    optimizer = torch.optim.SGD(student.parameters(), **SGD)
    running = torch.zeros(())

    def step(image: Tensor, label: Tensor) -> None:
        nonlocal running
        with torch.no_grad():
            teacher_logits = teacher(image)
        student_logits = student(image)
        soft, target = (
            F.log_softmax(student_logits / TEMPERATURE, -1),
            F.log_softmax(teacher_logits / TEMPERATURE, -1),
        )
        loss = F.cross_entropy(student_logits, label) + TEMPERATURE**2 * F.kl_div(
            soft, target, reduction="batchmean", log_target=True
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        running = running + loss.detach()

    return step


def with_features(net: nn.Module, image: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Return logits and stages of a residual network of the package."""
    image, stages = net.stem(image), []
    for stage in net.stages:
        image = stage(image)
        stages.append(image)
    return net.head(image.mean((2, 3))), stages


def plain_kd_fitnet(size: dict[str, int]) -> Step:
    """Return the same step with the squared difference of three stages of equal shapes."""
    student, teacher = nets(size)
    teacher.eval().requires_grad_(False)
    optimizer = torch.optim.SGD(student.parameters(), **SGD)
    running = torch.zeros(())

    def step(image: Tensor, label: Tensor) -> None:
        nonlocal running
        with torch.no_grad():
            teacher_logits, teacher_stages = with_features(teacher, image)
        student_logits, student_stages = with_features(student, image)
        soft, target = (
            F.log_softmax(student_logits / TEMPERATURE, -1),
            F.log_softmax(teacher_logits / TEMPERATURE, -1),
        )
        loss = F.cross_entropy(student_logits, label) + TEMPERATURE**2 * F.kl_div(
            soft, target, reduction="batchmean", log_target=True
        )
        for one, other in zip(student_stages, teacher_stages, strict=True):
            loss = loss + F.mse_loss(one, other)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        running = running + loss.detach()

    return step


def torchdistill_kd(size: dict[str, int]) -> Step:
    """Return the step of torchdistill's ``DistillationBox`` with its KD loss and equal weights."""
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


def fit_ratio(
    size: dict[str, int],
    objectives: dict[str, Objective],
    plain_step: Step,
    blocks: int,
    length: int,
) -> float:
    """Return the time of a step of ``fit`` relative to ``plain_step``."""
    student, teacher = nets(size)
    tapped = "fitnet" in objectives
    taps = [{"features": taps_for(net)["features"]} if tapped else {} for net in (student, teacher)]
    scheme = Offline(Net(student, taps=taps[0]), Frozen(Net(teacher, taps=taps[1])), objectives)
    training = Training(
        steps=length * blocks, optimizer=Optimization("sgd", SGD), schedule="constant"
    )
    timed = Blocks(plain_step, batches_of(size), length)
    fit(scheme, Endless(batches_of(size), length * blocks), training, on_step=timed.tick)
    return timed.ratio()


def taps_cost(size: dict[str, int], blocks: int, length: int) -> float:
    """Return the relative time of forward and backward with taps on three stages and the embedding.

    The reference is the same network, in the same memory, without its hooks.
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
        start = time.process_time()
        for _ in range(length):
            (net({"image": image})["logits"] if tapped else model(image)).square().mean().backward()
        seconds[tapped].append(time.process_time() - start)
    return statistics.median(
        a / b for a, b in zip(seconds[True][1:], seconds[False][1:], strict=True)
    )


def measure(blocks: int, sizes: dict[str, dict[str, int]]) -> dict[str, Any]:
    """Return all ratios, the number of threads and the version of torch."""
    results: dict[str, Any] = {}
    for prefix, size in sizes.items():
        length = 20 if prefix == "tiny" else 2
        turns = 2 * blocks if prefix == "tiny" else blocks
        kd: dict[str, Objective] = {"cross_entropy": CrossEntropy(), "kd": KD(TEMPERATURE)}
        results[f"{prefix}_kd_to_plain"] = fit_ratio(size, kd, plain_kd(size), turns, length)
        results[f"{prefix}_kd_fitnet_to_plain"] = fit_ratio(
            size, kd | {"fitnet": FitNet()}, plain_kd_fitnet(size), turns, length
        )
        results[f"{prefix}_taps"] = taps_cost(size, 2 * turns, length // 2)
        try:
            reference_step = torchdistill_kd(size)
        except ImportError:
            continue
        results[f"{prefix}_kd_to_torchdistill"] = fit_ratio(size, kd, reference_step, turns, length)
    return {name: round(value, 4) for name, value in results.items()} | {
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one flat JSON object only")
    parser.add_argument(
        "--blocks", type=int, default=15, help="number of pairs of blocks per ratio"
    )
    options = parser.parse_args()
    results = measure(options.blocks, SIZES)
    if options.json:
        print(json.dumps(results))
    else:
        for name, value in results.items():
            print(f"{name:34} {value}")


if __name__ == "__main__":
    main()
