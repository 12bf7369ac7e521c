"""One loss in a training loop of your own: ``dkd_loss`` is a plain function of tensors, as those of ``torch.nn.functional`` are.

python examples/own_loop_dkd_loss.py
"""

import torch
import torch.nn.functional as F
from torch import nn

from instil import dkd_loss
from instil.data.sources.digits import digits
from instil.networks.cnn import cnn
from instil.networks.mlp import mlp

data = digits()
images, labels = data.train.image, data.train.label
has_label = torch.arange(len(labels)) < 100


def train(net: nn.Module, loss_of, rows: torch.Tensor, steps: int) -> nn.Module:
    """Nothing of instil in here."""
    optimizer = torch.optim.AdamW(net.parameters(), 3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        batch = rows[torch.randint(len(rows), (64,), generator=generator)]
        optimizer.zero_grad()
        loss_of(net(images[batch]), batch).backward()
        optimizer.step()
        schedule.step()
    return net.eval()


def student() -> nn.Module:
    torch.manual_seed(0)
    return mlp(classes=10, width=16)


def accuracy(net: nn.Module) -> str:
    with torch.no_grad():
        return f"{100 * (net(data.test.image).argmax(-1) == data.test.label).float().mean():.1f} %"


everything, told = torch.arange(len(labels)), has_label.nonzero().flatten()
teacher = train(
    cnn(classes=10), lambda logits, batch: F.cross_entropy(logits, labels[batch]), everything, 200
)
with torch.no_grad():
    teacher_logits = teacher(images)
target = torch.where(
    has_label, labels, teacher_logits.argmax(-1)
)  # DKD asks for a target class: where there is no label, the teacher's

alone = train(student(), lambda logits, batch: F.cross_entropy(logits, labels[batch]), told, 1000)
distilled = train(
    student(),
    lambda logits, batch: dkd_loss(logits, teacher_logits[batch], target[batch], temperature=4),
    everything,
    1000,
)

print(f"teacher         {accuracy(teacher)}")
print(f"student alone   {accuracy(alone)}")
print(f"distilled       {accuracy(distilled)}")
