"""Checkpoints that are written during the next steps, on the ranks of this process group.

``test_checkpoint_writer.py`` starts this module on two processes.
"""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

import torch

from instil.engine import Engine, Optimization, checkpoint_writer, rank, wait_for_ranks
from instil.objectives.logits.kd import KD
from instil.schemes.offline.offline import Offline
from instil.teachers.frozen import Frozen
from instil.training.step import train_step
from tests.engine.sharded_on_ranks import batch_of, texts

commit_folder = checkpoint_writer.commit_folder


def start() -> tuple[Engine, Offline]:
    engine = Engine("cpu", shard=True)
    scheme = Offline(texts(8, 0), Frozen(texts(16, 1)), {"kd": KD()})
    engine.prepare(scheme, batch_of(0))
    engine.setup(scheme, lambda learner: Optimization("adamw", {"lr": 0.01}))
    scheme.train()
    return engine, scheme


def main() -> None:
    """Write three checkpoints: during a step, with an error, and in a process that ends."""
    out = Path(sys.argv[1])
    path = out.parent / "checkpoint.pt"
    engine, scheme = start()
    train_step(engine, scheme, [batch_of(0)])
    is_stepped = threading.Event()

    def commit_after_step(temporary: Path, target: Path) -> None:
        assert is_stepped.wait(60)
        commit_folder(temporary, target)

    checkpoint_writer.commit_folder = commit_after_step
    engine.save(scheme, path, {"step": 1})
    train_step(engine, scheme, [batch_of(1)])
    results = {"exists_during_step": path.exists()}
    wait_for_ranks()
    is_stepped.set()

    # The next call waits for the first checkpoint, and starts one that fails.
    def fail(*_paths: Path) -> None:
        raise OSError("no room")

    # A second before the end of the first one would replace its function.
    engine.writer.finish()
    checkpoint_writer.commit_folder = fail
    engine.save(scheme, path, {"step": 2})
    try:
        engine.save(scheme, path, {"step": 3})
    except OSError as error:
        results["error"] = str(error)
    # A killed process leaves the folder that it was writing.
    checkpoint_writer.commit_folder = lambda *_paths: os._exit(0)
    if rank() == 0:
        torch.save(results, out)
    engine.save(scheme, path, {"step": 4})
    assert engine.writer._pending is not None
    engine.writer._pending.result()
    os._exit(0)


if __name__ == "__main__":
    main()
