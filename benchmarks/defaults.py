"""Default weighting and temperature: label loss and KD against student alone and pseudo-labels.

python benchmarks/defaults.py --data DIR [--phase choose|confirm] [--json benchmarks/defaults.json]

There are seven small tasks: images, drawings, speech commands, point clouds, depth views, mails and
package descriptions. There are three label shares and three teachers, trained on all labels, on the
student's labels, or on a tenth of them if the student has all. All arms have the same initial
weights, steps, batch size and grid of learning rates.

``choose`` trains every arm with seeds 0 to 2 and reads the validation split only. ``confirm``
trains the arms of interest with new seeds, at the learning rate that ``choose`` found for each arm
and condition, and reads the test split. All students of a condition are trained together through
``torch.func.vmap``, with the result of separate trainings. Finished conditions are kept, and only
arms that they lack are trained.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from instil import cross_entropy_loss, dist_loss, kd_loss, label_smoothing_loss
from instil.files.json_files import write_json

LEARNING_RATES = (3e-3, 1e-2, 3e-2)
SHARES = (0.01, 0.1, 1.0)
STEPS = 300
TEACHERS = ("all_labels", "student_labels", "tenth")
CHOOSE_SEEDS = (0, 1, 2)
CONFIRM_SEEDS = (100, 101, 102, 103, 104, 105)
CONFIRMED = (
    "alone",
    "label_smoothing",
    "pseudo_labels",
    "labelled_t4",
    "batch_t2",
    "kd_t2",
    "batch_dist",
    "batch_dist_2",
)
BATCH_SIZE = 64
WEIGHT_DECAY = 0.01
TEACHER_STEPS = 400
TEACHER_RATE = 3e-3
UNLABELLED = -100
MIN_LABELS_PER_CLASS = 2
SMOOTHING = 0.1
ENTROPY_SHARE = 0.1  # share of the maximum entropy that the derived temperature reaches


@dataclass
class Task:
    """Inputs, labels and split (0 train, 1 validation, 2 test), and builders of the networks."""

    name: str
    inputs: Tensor
    labels: Tensor
    split: Tensor
    build_student: Callable[[], nn.Module]
    build_teacher: Callable[[], nn.Module]

    def part(self, index: int) -> tuple[Tensor, Tensor]:
        """Return inputs and labels of one part of the split."""
        rows = self.split == index
        return self.inputs[rows], self.labels[rows]

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return int(self.labels.max()) + 1


# Networks -----------------------------------------------------------------------------------------


def mlp(num_inputs: int, width: int, num_classes: int) -> nn.Module:
    """Perceptron with one hidden layer on flattened inputs."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(num_inputs, width), nn.ReLU(), nn.Linear(width, num_classes)
    )


# Tasks ----------------------------------------------------------------------------------------


def load_mnist(folder: Path) -> Task:
    """Handwritten digits, 14 x 14 pixels: perceptron of 3,322 parameters."""
    data = np.load(folder / "mnist10k.npz")
    images = F.avg_pool2d(torch.from_numpy(data["images"]).float() / 255, 2)
    split = torch.tensor([0] * 7000 + [1] * 1000 + [2] * 2000)
    labels = torch.from_numpy(data["labels"])
    return Task(
        "mnist", images - 0.13, labels, split, lambda: mlp(196, 16, 10), lambda: mlp(196, 256, 10)
    )


def load_emoji(folder: Path) -> Task:
    """Groups of emoji drawn by five vendors, 8 x 8 pixels; no emoji is in two parts."""
    data = np.load(folder / "emoji.npz")
    images = torch.from_numpy(data["images"]).float().flatten(0, 1).permute(0, 3, 1, 2) / 255
    images = F.avg_pool2d(images, 4) - 0.7
    num_vendors = data["images"].shape[1]
    labels = torch.from_numpy(data["group"]).repeat_interleave(num_vendors)
    split = torch.from_numpy(data["split"]).repeat_interleave(num_vendors)
    return Task("emoji", images, labels, split, lambda: mlp(192, 16, 9), lambda: mlp(192, 256, 9))


def load_speech(folder: Path) -> Task:
    """Speech commands (espeak), 20 mel bands x 16 frames; no voice is in two parts."""
    data = np.load(folder / "espeak_commands_logmel.npz")
    frames = F.avg_pool2d(torch.from_numpy(data["logmel"].astype(np.float32)), (2, 4))
    return Task(
        "speech",
        (frames - frames.mean()) / frames.std(),
        torch.from_numpy(data["label"]),
        torch.from_numpy(data["split"]),
        lambda: mlp(320, 16, 20),
        lambda: mlp(320, 256, 20),
    )


def load_points(folder: Path) -> Task:
    """Point clouds of ten deformed meshes: their projections along three axes on 8 x 8 cells."""
    data = np.load(folder / "points.npz")
    cells = ((torch.from_numpy(data["points"].astype(np.float32)) + 1) * 4).long().clamp(0, 7)
    views = []
    for first, second in ((0, 1), (0, 2), (1, 2)):
        flat = cells[..., first] * 8 + cells[..., second]
        views.append(torch.zeros(len(flat), 64).scatter_add_(1, flat, torch.ones(flat.shape)))
    return Task(
        "points",
        torch.cat(views, 1).sqrt(),
        torch.from_numpy(data["label"]),
        torch.from_numpy(data["split"]),
        lambda: mlp(192, 16, 10),
        lambda: mlp(192, 256, 10),
    )


def load_parts(folder: Path) -> Task:
    """Electronic parts in 23 classes: four depth views of 8 x 8 pixels."""
    data = np.load(folder / "kicad_parts.npz")
    depth = F.avg_pool2d(torch.from_numpy(data["depth"]).float() / 255, 4)
    return Task(
        "parts",
        depth - depth.mean(),
        torch.from_numpy(data["label"]),
        torch.from_numpy(data["split"]),
        lambda: mlp(256, 16, 23),
        lambda: mlp(256, 256, 23),
    )


def load_spam(folder: Path) -> Task:
    """Mails, the 400 most frequent words of the training split."""
    with gzip.open(folder / "spam_assassin.jsonl.gz", "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    counts: Counter[str] = Counter()
    for row in rows:
        if row["split"] == "train":
            counts.update(set(row["text"].lower().split()))
    vocabulary = {word: i for i, (word, _) in enumerate(counts.most_common(400))}
    inputs = torch.zeros(len(rows), len(vocabulary))
    for i, row in enumerate(rows):
        for word in set(row["text"].lower().split()) & vocabulary.keys():
            inputs[i, vocabulary[word]] = 1
    split = torch.tensor([["train", "val", "test"].index(row["split"]) for row in rows])
    labels = torch.tensor([row["label"] for row in rows])
    return Task("spam", inputs, labels, split, lambda: mlp(400, 4, 2), lambda: mlp(400, 64, 2))


def load_packages(folder: Path) -> Task:
    """Sections of Debian packages by the 500 most frequent words; split 60 / 15 / 25 %."""
    data = np.load(folder / "debian_packages_graph.npz")
    inputs = torch.zeros(len(data["label"]), len(data["vocab"]))
    starts = data["x_indptr"]
    for i in range(len(inputs)):
        inputs[i, data["x_indices"][starts[i] : starts[i + 1]]] = 1
    inputs = inputs[:, inputs.sum(0).topk(500).indices]
    order = torch.randperm(len(inputs), generator=torch.Generator().manual_seed(0))
    split = torch.full((len(inputs),), 2)
    split[order[: int(0.6 * len(inputs))]] = 0
    split[order[int(0.6 * len(inputs)) : int(0.75 * len(inputs))]] = 1
    labels = torch.from_numpy(data["label"].astype(np.int64))
    return Task(
        "packages", inputs, labels, split, lambda: mlp(500, 8, 10), lambda: mlp(500, 64, 10)
    )


TASKS: dict[str, Callable[[Path], Task]] = {
    "mnist": load_mnist,
    "emoji": load_emoji,
    "speech": load_speech,
    "points": load_points,
    "parts": load_parts,
    "spam": load_spam,
    "packages": load_packages,
}

# Arms -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Arm:
    """Weights of the label loss, of KD and of DIST, and the average of the label loss.

    Attributes:
        label_weight: weight of the cross-entropy with the label.
        average: ``"labelled"`` or ``"batch"``: items whose number divides the label loss.
        kd_weight: weight of KD on all items of the batch.
        temperature: temperature of KD; 0: derived from the teacher's entropy.
        dist_weight: weight of DIST at temperature 1 on all items of the batch.
        pseudo: whether the teacher's most likely class replaces a missing label.
        smoothing: whether the label is smoothed.
        labelled_only: whether the batches contain labelled items only.
    """

    label_weight: float = 1.0
    average: str = "labelled"
    kd_weight: float = 1.0
    temperature: float = 1.0
    dist_weight: float = 0.0
    pseudo: bool = False
    smoothing: bool = False
    labelled_only: bool = False


ARMS: dict[str, Arm] = {
    "alone": Arm(kd_weight=0, labelled_only=True),
    "label_smoothing": Arm(kd_weight=0, smoothing=True, labelled_only=True),
    "pseudo_labels": Arm(kd_weight=0, pseudo=True),
    "labelled_t1": Arm(),
    "labelled_t4": Arm(temperature=4),
    "batch_t1": Arm(average="batch"),
    "batch_t2": Arm(average="batch", temperature=2),
    "batch_t4": Arm(average="batch", temperature=4),
    "batch_entropy": Arm(average="batch", temperature=0),
    "kd_t1": Arm(label_weight=0),
    "kd_t2": Arm(label_weight=0, temperature=2),
    "pseudo_t1": Arm(pseudo=True),
    "pseudo_t2": Arm(pseudo=True, temperature=2),
    "batch_dist": Arm(average="batch", kd_weight=0, dist_weight=1),
    "batch_dist_2": Arm(average="batch", kd_weight=0, dist_weight=2),
    "dist": Arm(label_weight=0, kd_weight=0, dist_weight=1),
}


def temperature_by_entropy(teacher_logits: Tensor) -> float:
    """Return the temperature in [1, 4] at which the mean entropy is a tenth of the maximum."""
    target = ENTROPY_SHARE * math.log(teacher_logits.shape[-1])
    low, high = 1.0, 4.0
    for _ in range(20):
        middle = (low + high) / 2
        log_probability = (teacher_logits / middle).log_softmax(-1)
        entropy = float(-(log_probability.exp() * log_probability).sum(-1).mean())
        low, high = (middle, high) if entropy < target else (low, middle)
    return (low + high) / 2


def total_loss(
    arms: Sequence[Arm], logits: Tensor, labels: Tensor, teacher_logits: Tensor, soft: Tensor
) -> Tensor:
    """Return the sum of the losses of all models.

    Args:
        arms: loss settings; either all or none smooth the labels.
        logits: student logits (seeds, arms, rates, batch, classes).
        labels: (seeds, batch), -100 for unlabelled.
        teacher_logits: (seeds, batch, classes).
        soft: temperatures from the teacher's entropy (seeds,).
    """

    def column(values: Sequence[float]) -> Tensor:
        return torch.tensor(values)[:, None, None]

    pseudo = torch.where(labels == UNLABELLED, teacher_logits.argmax(-1), labels)
    targets = torch.stack([pseudo if arm.pseudo else labels for arm in arms], 1)
    target = targets.unsqueeze(2).expand(logits.shape[:-1])
    hard = cross_entropy_loss(logits, target, "none")
    if any(arm.smoothing for arm in arms):
        smoothed = label_smoothing_loss(logits, target, SMOOTHING, reduction="none")
        hard = torch.where(column([arm.smoothing for arm in arms]) > 0, smoothed, hard)
    counts = (target != UNLABELLED).sum(-1, keepdim=True).clamp_min(1)
    over_batch = column([arm.average == "batch" for arm in arms])
    hard = hard / torch.where(over_batch, target.shape[-1], counts)
    loss = (column([arm.label_weight for arm in arms]) * hard).sum()
    if any(arm.kd_weight for arm in arms):
        # Dividing by the temperature first lets one call serve arms of different temperatures.
        fixed = torch.tensor([float(arm.temperature) for arm in arms])
        by_seed = torch.where(fixed > 0, fixed, soft[:, None])[:, :, None, None]
        teacher = teacher_logits[:, None, None].expand_as(logits) / by_seed.unsqueeze(-1)
        values = kd_loss(logits / by_seed.unsqueeze(-1), teacher, 1.0, reduction="none")
        values = values * by_seed.square() / target.shape[-1]
        loss = loss + (column([arm.kd_weight for arm in arms]) * values).sum()
    if any(arm.dist_weight for arm in arms):
        teacher = teacher_logits[:, None, None].expand_as(logits).flatten(0, 2)
        # Relations among the items are those of the batch of one model.
        by_model = vmap(dist_loss)(logits.flatten(0, 2), teacher).view(logits.shape[:3])
        loss = loss + (torch.tensor([arm.dist_weight for arm in arms])[:, None] * by_model).sum()
    return loss


# Training -------------------------------------------------------------------------------------


class StackedAdamW:
    """AdamW with a cosine schedule over models (seeds, arms, ...), each with its own rate."""

    def __init__(self, parameters: dict[str, Tensor], rates: Tensor, steps: int):
        self.parameters, self.rates, self.steps = parameters, rates, steps
        self.first = {name: torch.zeros_like(value) for name, value in parameters.items()}
        self.second = {name: torch.zeros_like(value) for name, value in parameters.items()}
        self.step_index = 0

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor]) -> None:
        """Update all models once."""
        schedule = (1 + math.cos(math.pi * self.step_index / self.steps)) / 2
        self.step_index += 1
        correction = math.sqrt(1 - 0.999**self.step_index) / (1 - 0.9**self.step_index)
        for (name, value), gradient in zip(self.parameters.items(), gradients, strict=True):
            first, second = self.first[name], self.second[name]
            first.lerp_(gradient, 0.1)
            second.lerp_(gradient.square(), 0.001)
            rate = self.rates.view(*self.rates.shape, *[1] * (value.ndim - self.rates.ndim))
            value.mul_(1 - schedule * WEIGHT_DECAY * rate)
            update = first / second.sqrt().add_(1e-8)
            value.sub_(update.mul_(rate * (schedule * correction)))


def stacked(
    build: Callable[[], nn.Module], seeds: Sequence[int], shape: tuple[int, ...]
) -> tuple[dict[str, Tensor], nn.Module]:
    """Return parameters (seeds, *shape, ...), equal within a seed, and a skeleton module."""
    models = []
    for seed in seeds:
        torch.manual_seed(seed)
        models.append(build())
    parameters, _ = stack_module_state(models)
    copies = {
        name: value.detach()
        .view(len(seeds), *[1] * len(shape), *value.shape[1:])
        .expand(len(seeds), *shape, *value.shape[1:])
        .clone()
        .requires_grad_()
        for name, value in parameters.items()
    }
    return copies, models[0]


def forward(skeleton: nn.Module, parameters: dict[str, Tensor], inputs: Tensor) -> Tensor:
    """Return logits (seeds, arms, rates, batch, classes) of inputs (seeds, batch, ...)."""

    def call(state: dict[str, Tensor], batch: Tensor) -> Tensor:
        return functional_call(skeleton, state, (batch,))

    over_models = vmap(vmap(call, in_dims=(0, None)), in_dims=(0, None))
    logits: Tensor = vmap(over_models, in_dims=(0, 0))(parameters, inputs)
    return logits


def batches(rows: Tensor, steps: int, seed: int) -> Tensor:
    """Return ``rows`` in shuffled epochs, (steps, batch)."""
    generator = torch.Generator().manual_seed(seed)
    need = steps * BATCH_SIZE
    epochs = [
        rows[torch.randperm(len(rows), generator=generator)] for _ in range(-(-need // len(rows)))
    ]
    return torch.cat(epochs)[:need].view(steps, BATCH_SIZE)


def labelled_rows(labels: Tensor, share: float, seed: int) -> Tensor:
    """Return the training rows with a label for the student; at least two per class."""
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(1000 + seed))
    size = round(share * len(labels))
    chosen: list[int] = []
    for label in range(int(labels.max()) + 1):
        chosen += order[labels[order] == label][:MIN_LABELS_PER_CLASS].tolist()
    others = [row for row in order.tolist() if row not in set(chosen)]
    chosen += others[: max(0, size - len(chosen))]
    return torch.tensor(chosen)


def train(
    build: Callable[[], nn.Module],
    arms: Sequence[Arm],
    inputs: Tensor,
    labels: Tensor,
    rows: Sequence[Tensor],
    teacher_logits: Tensor,
    seeds: Sequence[int],
    rates: Tensor,
    steps: int,
) -> tuple[dict[str, Tensor], nn.Module]:
    """Train all models (seeds, arms, rates) on one stream of batches for each seed.

    Args:
        build: builds a student.
        arms: loss settings.
        inputs: training inputs (N, ...).
        labels: (seeds, N), -100 for unlabelled.
        rows: training rows of each seed.
        teacher_logits: (seeds, N, classes).
        seeds: seeds of initial weights and order.
        rates: learning rates (arms, rates).
        steps: number of steps.
    """
    parameters, skeleton = stacked(build, seeds, tuple(rates.shape))
    expanded = rates.expand(len(seeds), *rates.shape)
    optimizer = StackedAdamW(parameters, expanded, steps)
    streams = torch.stack(
        [batches(own, steps, seed) for own, seed in zip(rows, seeds, strict=True)]
    )
    temperatures = torch.ones(len(seeds))
    if any(arm.temperature == 0 for arm in arms):
        temperatures = torch.tensor([temperature_by_entropy(logits) for logits in teacher_logits])
    for step in range(steps):
        index = streams[:, step]
        batch_labels = labels.gather(1, index)
        batch_teacher = torch.stack(
            [logits[own] for logits, own in zip(teacher_logits, index, strict=True)]
        )
        logits = forward(skeleton, parameters, inputs[index])
        loss = total_loss(arms, logits, batch_labels, batch_teacher, temperatures)
        optimizer.step(torch.autograd.grad(loss, list(parameters.values())))
    return parameters, skeleton


@torch.no_grad()
def accuracy(
    skeleton: nn.Module, parameters: dict[str, Tensor], inputs: Tensor, labels: Tensor
) -> Tensor:
    """Return the accuracy (seeds, arms, rates)."""
    num_seeds = len(next(iter(parameters.values())))
    correct = torch.zeros(())
    for start in range(0, len(inputs), 256):
        part = inputs[start : start + 256]
        logits = forward(skeleton, parameters, part.expand(num_seeds, *part.shape))
        correct = correct + (logits.argmax(-1) == labels[start : start + 256]).sum(-1)
    return correct / len(inputs)


def teacher_logits_of(
    task: Task, labels: Tensor, rows: Sequence[Tensor], seeds: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """Return training logits (seeds, N, classes) and test accuracies (seeds,) of teachers."""
    inputs, _ = task.part(0)
    blank = torch.zeros(len(seeds), len(inputs), task.num_classes)
    parameters, skeleton = train(
        task.build_teacher,
        [Arm(kd_weight=0)],
        inputs,
        labels,
        rows,
        blank,
        seeds,
        torch.tensor([[TEACHER_RATE]]),
        TEACHER_STEPS,
    )
    with torch.no_grad():
        parts = [
            forward(skeleton, parameters, part.expand(len(seeds), *part.shape))[:, 0, 0]
            for part in inputs.split(256)
        ]
    return torch.cat(parts, 1), accuracy(skeleton, parameters, *task.part(2))[:, 0, 0]


def condition(
    task: Task,
    share: float,
    teacher: str,
    length: int,
    arms: dict[str, tuple[Arm, Sequence[float]]],
    seeds: Sequence[int],
    part: int,
) -> dict[str, Any]:
    """Return the accuracy of every arm, learning rate and seed on one part of the split.

    Args:
        task: data and networks.
        share: labelled share of the training split.
        teacher: training labels of the teacher: ``"all_labels"``, ``"tenth"`` of them, or
            ``"student_labels"`` (one teacher per seed).
        length: number of steps.
        arms: name -> arm and learning rates; all arms have the same number of rates.
        seeds: seeds of labelled subset, initial weights and order.
        part: 1 validation, 2 test.
    """
    inputs, truth = task.part(0)
    labelled = [labelled_rows(truth, share, seed) for seed in seeds]
    labels = torch.full((len(seeds), len(truth)), UNLABELLED)
    for i, own in enumerate(labelled):
        labels[i, own] = truth[own]
    everything = torch.arange(len(truth))
    if teacher == "student_labels":
        logits, teacher_accuracy = teacher_logits_of(task, labels, labelled, seeds)
    else:
        # One teacher for all seeds, as in a run.
        own = everything if teacher == "all_labels" else labelled_rows(truth, SHARES[1], 0)
        logits, teacher_accuracy = teacher_logits_of(task, truth[None], [own], [0])
        logits = logits.expand(len(seeds), *logits.shape[1:])
    results: dict[str, Any] = {}
    for labelled_only in (True, False):
        names = [name for name, (arm, _) in arms.items() if arm.labelled_only == labelled_only]
        if not names:
            continue
        rates = torch.tensor([list(arms[name][1]) for name in names])
        parameters, skeleton = train(
            task.build_student,
            [arms[name][0] for name in names],
            inputs,
            labels,
            labelled if labelled_only else [everything] * len(seeds),
            logits,
            seeds,
            rates,
            length,
        )
        scores = accuracy(skeleton, parameters, *task.part(part))
        for i, name in enumerate(names):
            results[name] = {
                f"{rate:g}": [round(value, 4) for value in scores[:, i, j].tolist()]
                for j, rate in enumerate(arms[name][1])
            }
    return {
        "task": task.name,
        "share": share,
        "labels": len(labelled[0]),
        "teacher": teacher,
        "steps": length,
        "teacher_test_accuracy": round(float(teacher_accuracy.mean()), 4),
        "arms": results,
    }


def conditions() -> list[tuple[float, str, int]]:
    """Return label share, teacher and number of steps of every condition."""
    few, some, every = SHARES
    return [
        (few, "all_labels", STEPS),
        (some, "all_labels", STEPS),
        # With all labels the teacher with the student's labels is the one with all.
        (every, "all_labels", STEPS),
        (some, "student_labels", STEPS),
        (every, "tenth", STEPS),
        (few, "student_labels", STEPS),
    ]


def by_condition(rows: Sequence[dict[str, Any]]) -> dict[tuple[Any, ...], dict[str, Any]]:
    """Return rows by task, label share, teacher and number of steps."""
    return {(row["task"], row["share"], row["teacher"], row["steps"]): row for row in rows}


def best_rates(row: dict[str, Any]) -> dict[str, float]:
    """Return for each arm the learning rate with the best validation mean."""
    return {
        name: float(max(scores, key=lambda rate: float(np.mean(scores[rate]))))
        for name, scores in row["arms"].items()
    }


# Summary --------------------------------------------------------------------------------------


def print_choice(rows: Sequence[dict[str, Any]]) -> None:
    """Print mean, minimum and number of losses of every arm against pseudo-labels."""
    print(f"{'arm':18} {'mean':>6} {'worst':>6} {'few':>6} {'equal':>6}  losses > 1 point")
    for name in ARMS:
        gains = []
        for row in rows:
            best = {arm: max(map(np.mean, row["arms"][arm].values())) for arm in row["arms"]}
            gains.append(100 * float(best[name] - best["pseudo_labels"]))
        few = [g for g, row in zip(gains, rows, strict=True) if row["share"] < 1]
        equal = [
            g for g, row in zip(gains, rows, strict=True) if row["teacher"] == "student_labels"
        ]
        losses = sum(gain < -1 for gain in gains)
        print(
            f"{name:18} {np.mean(gains):6.2f} {min(gains):6.1f} {np.mean(few):6.2f} "
            f"{np.mean(equal):6.2f}  {losses} of {len(gains)}"
        )


def main() -> None:
    """Run the phases and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of the data files")
    parser.add_argument("--phase", choices=("choose", "confirm"), default="choose")
    parser.add_argument("--tasks", nargs="*", choices=list(TASKS), default=list(TASKS))
    parser.add_argument("--json", type=Path, default=Path(__file__).with_suffix(".json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    table: dict[str, Any] = {"choose": [], "confirm": []}
    if options.json.exists():
        table = json.loads(options.json.read_text(encoding="utf-8"))
    chosen, finished = by_condition(table["choose"]), by_condition(table[options.phase])
    compared = ARMS if options.phase == "choose" else CONFIRMED
    tasks = [TASKS[name](options.data) for name in options.tasks]
    for share, teacher, length in conditions():
        for task in tasks:
            own = (task.name, share, teacher, length)
            earlier = finished[own]["arms"] if own in finished else {}
            names = [name for name in compared if name not in earlier]
            if not names:
                continue
            start = time.perf_counter()
            if options.phase == "choose":
                arms = {name: (ARMS[name], LEARNING_RATES) for name in names}
                row = condition(task, share, teacher, length, arms, CHOOSE_SEEDS, part=1)
            else:
                rates = best_rates(chosen[own])
                settings = {name: (ARMS[name], (rates[name],)) for name in names}
                row = condition(task, share, teacher, length, settings, CONFIRM_SEEDS, part=2)
            row["arms"] = earlier | row["arms"]
            finished[own] = row
            table[options.phase] = [*finished.values()]
            best = {
                name: 100 * max(float(np.mean(v)) for v in scores.values())
                for name, scores in row["arms"].items()
            }
            shown = " ".join(f"{name} {value:.1f}" for name, value in best.items())
            print(*own, f"teacher {100 * row['teacher_test_accuracy']:.1f}", shown)
            print(f"   {time.perf_counter() - start:.0f} s", flush=True)
            write_json(options.json, table)
    if table["choose"]:
        print_choice(table["choose"])


if __name__ == "__main__":
    main()
