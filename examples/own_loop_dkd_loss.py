"""Use ``dkd_loss`` in a training loop of your own: a function of tensors, as in
``torch.nn.functional``.

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
    """A plain PyTorch loop, without instil."""
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
        is_correct = net(data.test.image).argmax(-1) == data.test.label
    return f"{100 * is_correct.float().mean():.1f} %"


all_rows = torch.arange(len(labels))
labelled_rows = has_label.nonzero().flatten()
teacher = train(
    cnn(classes=10), lambda logits, batch: F.cross_entropy(logits, labels[batch]), all_rows, 200
)
with torch.no_grad():
    teacher_logits = teacher(images)
# DKD needs a target class: an image without a label gets the teacher's most likely class.
target = torch.where(has_label, labels, teacher_logits.argmax(-1))

alone = train(
    student(), lambda logits, batch: F.cross_entropy(logits, labels[batch]), labelled_rows, 1000
)
distilled = train(
    student(),
    lambda logits, batch: dkd_loss(logits, teacher_logits[batch], target[batch], temperature=4),
    all_rows,
    1000,
)

print(f"teacher         {accuracy(teacher)}")
print(f"student alone   {accuracy(alone)}")
print(f"distilled       {accuracy(distilled)}")
