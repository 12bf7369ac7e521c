"""Distillation in one call: a teacher, a student and a loader in, the trained student out.

python examples/distil_in_one_call.py
"""

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import instil
from instil.data.sources.digits import digits
from instil.networks.cnn import cnn
from instil.networks.mlp import mlp

data = digits()
images, labels = data.train.image, data.train.label
partly = labels.clone()
partly[100:] = -100  # the student is told 100 of the 1,000 labels; -100 means: has none


def loader(images: Tensor, labels: Tensor) -> DataLoader:
    return DataLoader(
        TensorDataset(images, labels),
        batch_size=64,
        shuffle=True,
        generator=torch.Generator().manual_seed(0),
    )


def student() -> nn.Module:
    torch.manual_seed(0)
    return mlp(classes=10, width=16)


def accuracy(net: nn.Module) -> str:
    with torch.no_grad():
        right = net.eval()(data.test.image).argmax(-1) == data.test.label
    return f"{100 * right.float().mean():.1f} %"


steps = instil.Training(steps=960, optimizer=instil.Optimization(options={"lr": 3e-3}))
teacher, alone, distilled = cnn(classes=10), student(), student()

instil.fit(
    instil.Offline(teacher, None, {"cross_entropy": instil.CrossEntropy()}),
    loader(images, labels),
    instil.Training(epochs=10),
)
instil.fit(
    instil.Offline(alone, None, {"cross_entropy": instil.CrossEntropy()}),
    loader(images[:100], labels[:100]),
    steps,
)
instil.distil(
    teacher, distilled, loader(images, partly), {"cross_entropy": 1.0, "kd": 1.0}, training=steps
)

print(f"teacher         {accuracy(teacher)}")
print(f"student alone   {accuracy(alone)}")
print(f"distilled       {accuracy(distilled)}")
