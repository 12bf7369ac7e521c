"""Texts of sharded networks, on the ranks of this process group.

``test_lockstep.py`` starts this module on two processes.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import Tensor

from instil.core import Batch, Net
from instil.engine import Engine, Optimization, gather_rows, rank
from instil.generation.lockstep import is_sharded
from instil.generation.reader import CACHE_WORKS, index_batch
from instil.generation.rollout import generate_text
from instil.objectives.labels.cross_entropy import CrossEntropy
from instil.schemes.offline.offline import Offline
from instil.tasks.bases.causal_model import call
from tests.generation.test_families import LENGTH, NEW, prompts, sharpened

FAMILIES = {"llama": True, "mamba": True, "rwkv": False}
"""Families of models, and whether their cache is used."""
SHARES = ([1], [0, 2, 3])
"""Rows of each process: the first one has no prompt tokens before the last one."""
END = 7
SHORT = 6
"""Length of the row of the first process, whose text ends before the others."""


def part_of(process: int) -> Batch:
    """Rows of one process."""
    part = index_batch(prompts(), torch.tensor(SHARES[process]))
    if process:
        return part
    return {key: value[:, :SHORT] if value.ndim > 1 else value for key, value in part.items()}


def net_of(name: str) -> Net:
    """Network without shards."""
    return Net(sharpened(name), call)


def texts_of(net: Net, batch: Batch) -> Tensor:
    """Generated tokens (N, LENGTH) of the rows of a process, padded with -100."""
    text = generate_text(net, batch, END, max_new_tokens=NEW, temperature=0.0)["token"]
    padding = text.new_full((len(text), LENGTH - text.shape[1]), -100)
    return torch.cat([text, padding], 1)


def main() -> None:
    """Write the texts of all processes, and whether each one uses the cache."""
    # The first engine joins the processes, before which there seems to be one.
    Engine("cpu")
    results = {}
    for name in FAMILIES:
        scheme = Offline(net_of(name), None, {"cross_entropy": CrossEntropy()})
        engine = Engine("cpu", shard=True)
        scheme.prepare(prompts())
        engine.setup(scheme, lambda learner: Optimization("sgd", {"lr": 0.1}))
        assert is_sharded(scheme.student)
        results[name] = gather_rows(texts_of(scheme.student, part_of(rank())))
        works = torch.tensor([vars(scheme.student).get(CACHE_WORKS, False)])
        results[f"{name} cache"] = gather_rows(works)
    if rank() == 0:
        torch.save(results, Path(sys.argv[1]))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
