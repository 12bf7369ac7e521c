"""Train a student with one call: ``instil.distil(teacher, student, loader, objectives)``.

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
partial_labels = labels.clone()
partial_labels[100:] = -100  # the student sees 100 of the 1,000 labels; -100 marks a missing label


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
        is_correct = net.eval()(data.test.image).argmax(-1) == data.test.label
    return f"{100 * is_correct.float().mean():.1f} %"


training = instil.Training(steps=960, optimizer=instil.Optimization(options={"lr": 3e-3}))
teacher = cnn(classes=10)
alone = student()
distilled = student()

instil.fit(
    instil.Offline(teacher, None, {"cross_entropy": instil.CrossEntropy()}),
    loader(images, labels),
    instil.Training(epochs=10),
)
instil.fit(
    instil.Offline(alone, None, {"cross_entropy": instil.CrossEntropy()}),
    loader(images[:100], labels[:100]),
    training,
)
instil.distil(
    teacher,
    distilled,
    loader(images, partial_labels),
    {"cross_entropy": 1.0, "kd": 1.0},
    training=training,
)

print(f"teacher         {accuracy(teacher)}")
print(f"student alone   {accuracy(alone)}")
print(f"distilled       {accuracy(distilled)}")
