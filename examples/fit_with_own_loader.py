"""Train with ``fit``: plain modules, tuples of a DataLoader, validation, and a resumed run.

python examples/fit_with_own_loader.py
"""

import tempfile
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from instil import (
    KD,
    CrossEntropy,
    Frozen,
    Objectives,
    Offline,
    Optimization,
    Schedule,
    Training,
    fit,
)
from instil.data.sources.digits import digits

data = digits()


class Student(nn.Module):
    """Any module works: its input is the first tensor of the batch, its output is ``logits``."""

    def __init__(self, width: int = 16):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10)
        )

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.layers(image)


def loader(images: int, labelled: int) -> DataLoader:
    """Tuples (image, label) of the first images; -100 replaces the labels after ``labelled``."""
    labels = data.train.label.clone()
    labels[labelled:] = -100
    return DataLoader(
        TensorDataset(data.train.image[:images], labels[:images]), batch_size=64, shuffle=True
    )


def accuracy(net: nn.Module, split: str = "test") -> float:
    part = getattr(data, split)
    with torch.no_grad():
        return float((net({"image": part.image})["logits"].argmax(-1) == part.label).float().mean())


def scheme(teacher: nn.Module | None) -> Offline:
    torch.manual_seed(0)
    objectives = {"cross_entropy": CrossEntropy()} | ({"kd": KD(temperature=2)} if teacher else {})
    weights = {"kd": Schedule(start=0, end=1, until=0.2)} if teacher else {}
    return Offline(Student(), Frozen(teacher) if teacher else None, Objectives(objectives, weights))


class PowerCutError(Exception):
    """Stops the first attempt."""


def stop_after_30_epochs(record: dict) -> None:
    if record["epoch"] == 30:
        raise PowerCutError


torch.manual_seed(0)
teacher = Student(256)
fit(
    Offline(teacher, None, {"cross_entropy": CrossEntropy()}),
    loader(1000, 1000),
    Training(epochs=30),
)

adamw = Optimization("adamw", {"lr": 3e-3, "weight_decay": 0.01})
training = Training(steps=960, optimizer=adamw, warmup=0.05, clip=1.0, checkpoint_every=10)
alone = fit(scheme(None), loader(100, 100), training)
with tempfile.TemporaryDirectory() as folder:
    checkpoint = Path(folder) / "run.pt"
    try:
        fit(
            scheme(teacher),
            loader(1000, 100),
            training,
            checkpoint=checkpoint,
            report=stop_after_30_epochs,
        )
    except PowerCutError:
        print("stopped in epoch 30; the last checkpoint is that of epoch 20")
    resumed = fit(scheme(teacher), loader(1000, 100), training, checkpoint=checkpoint)
whole = fit(
    scheme(teacher),
    loader(1000, 100),
    training,
    evaluate=lambda net: {"accuracy": accuracy(net, "validation")},
)

print(f"student alone           {100 * accuracy(alone.net):.1f} %")
print(f"distilled, resumed      {100 * accuracy(resumed.net):.1f} %")
print(f"distilled, in one piece {100 * accuracy(whole.net):.1f} %")
print(f"validation accuracy     {100 * whole.records[-1]['validation']['accuracy']:.1f} %")
