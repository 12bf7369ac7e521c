"""Training with an average of the weights on each rank; started by ``test_average.py``."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from instil.core import Net
from instil.engine import checkpoint_writer, init_distributed, rank
from instil.training.fit import TrainState, fit
from tests.training.test_average import BEST, Steps, loader, scheme_without_norm, training

commit_folder = checkpoint_writer.commit_folder


def commit_late(temporary: Path, path: Path) -> None:
    time.sleep(1)
    commit_folder(temporary, path)


def own_half() -> list[dict[str, Any]]:
    """Half of each batch of eight samples."""
    return [
        {key: value[rank() * 4 : rank() * 4 + 4] for key, value in whole.items()}
        for whole in loader(8)
    ]


def write(net: Net, path: Path) -> None:
    if rank() == 0:
        torch.save(net.state_dict(), path)


def stop(state: TrainState) -> None:
    if state.step == 3:
        raise KeyboardInterrupt


def evaluate(exported: Net) -> dict[str, float]:
    with torch.no_grad():
        return {"mean": float(exported(loader(8)[0])["logits"].mean())}


def main(folder: Path) -> None:
    init_distributed("cpu")
    for name, shard in (("replicated", False), ("sharded", True)):
        options = training(shard=shard)
        result = fit(scheme_without_norm(), own_half(), options, evaluate=evaluate)
        write(result.net, folder / f"{name}.pt")
    options = training(shard=True, checkpoint_steps=2)
    path = folder / "checkpoint.pt"
    checkpoint_writer.commit_folder = commit_late
    try:
        fit(scheme_without_norm(), own_half(), options, checkpoint=path, on_step=stop)
    except KeyboardInterrupt:
        # The error comes after the checkpoint of step 2.
        assert rank() != 0 or path.is_dir()
        dist.barrier()
    checkpoint_writer.commit_folder = commit_folder
    result = fit(scheme_without_norm(), own_half(), options, evaluate=evaluate, checkpoint=path)
    write(result.net, folder / "resumed.pt")
    options = training(shard=True, **BEST)
    result = fit(scheme_without_norm(), own_half(), options, evaluate=Steps())
    write(result.net, folder / "best.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
