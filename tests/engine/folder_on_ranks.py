"""Training of folders with weights, on the ranks of this process group.

``test_sharding.py`` starts this module on two processes.
"""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path

import torch
from torch import Tensor

from instil.core import Batch, Net, Outputs
from instil.engine import Engine, Optimization, rank
from instil.networks import factory
from instil.objectives.logits.kd import KD
from instil.schemes.offline.offline import Offline
from instil.teachers.frozen import Frozen
from instil.training.step import train_step
from tests.engine.sharded_on_ranks import batch_of

STEPS = 20


class OwnMemory:
    """Context that measures the growth of this process's memory without views of files.

    Attributes:
        peak: largest growth so far, in bytes.
    """

    def __enter__(self) -> OwnMemory:
        self.start = own_bytes()
        self.peak = 0
        self.is_over = False
        self.thread = threading.Thread(target=self.watch)
        self.thread.start()
        return self

    def watch(self) -> None:
        while not self.is_over:
            self.peak = max(self.peak, own_bytes() - self.start)
            time.sleep(0.001)

    def __exit__(self, *error: object) -> None:
        self.is_over = True
        self.thread.join()


def own_bytes() -> int:
    """Bytes of this process that are not views of files."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith("RssAnon:"))
    return 1024 * int(line.split()[1])


def call(model: torch.nn.Module, batch: Batch) -> Outputs:
    return {"logits": model(input_ids=batch["tokens"]).logits}


def build(folder: Path) -> Net:
    options = {"path": str(folder)}
    spec = "transformers:AutoModelForCausalLM"
    return Net(factory.build(spec, options, pretrained=True), call)


def set_up(folder: Path, teacher: str, shard: bool) -> tuple[Engine, Offline]:
    """Build two folders and prepare their training."""
    engine = Engine("cpu", shard=shard, clip=1.0)
    scheme = Offline(build(folder / "student"), Frozen(build(folder / teacher)), {"kd": KD()})
    engine.prepare(scheme, batch_of(0))
    engine.setup(scheme, lambda learner: Optimization("adamw", {"lr": 0.001}))
    return engine, scheme


def trained(folder: Path, shard: bool) -> tuple[Tensor, int]:
    """Weights after all steps, and the peak of memory until the first step."""
    # Modules that the first call imports are not measured.
    set_up(folder, "student", shard)
    with OwnMemory() as memory:
        engine, scheme = set_up(folder, "teacher", shard)
    scheme.train()
    for step in range(STEPS):
        train_step(engine, scheme, [batch_of(step)])
    state = engine.release(scheme).student.state_dict()
    return torch.cat([value.flatten() for value in state.values()]), memory.peak


def main() -> None:
    """Train, and write weights and memory of the first process."""
    # The first engine joins the processes.
    Engine("cpu")
    weights, peak = trained(Path(sys.argv[2]), shard=True)
    if rank() == 0:
        torch.save({"weights": weights, "peak": torch.tensor(peak)}, Path(sys.argv[1]))


if __name__ == "__main__":
    main()
