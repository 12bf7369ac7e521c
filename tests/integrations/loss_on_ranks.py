"""A distributed loss on each rank; started by ``test_distillation_loss.py``."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import nn

from instil.engine import init_distributed, rank
from instil.integrations import DistillationLoss
from tests.integrations.test_distillation_loss import plain_network, two_batches


def main(path: Path) -> None:
    init_distributed("cpu")
    torch.manual_seed(0)
    student = plain_network(4)
    objectives = {"cross_entropy": 1.0, "rkd": 1.0, "kd": 1.0}
    batches = two_batches()
    loss = DistillationLoss(plain_network(8), student, objectives, batches[0])
    parallel = nn.parallel.DistributedDataParallel(loss)
    optimizer = torch.optim.SGD(parallel.parameters(), lr=0.05)
    for step, (image, label) in enumerate(batches):
        # Parts of different sizes: the first rank has five of eight samples.
        part = slice(0, 5) if rank() == 0 else slice(5, 8)
        optimizer.zero_grad()
        parallel((image[part], label[part]), step).loss.backward()
        optimizer.step()
        loss.after_step()
    if rank() == 0:
        torch.save(student.state_dict(), path)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
