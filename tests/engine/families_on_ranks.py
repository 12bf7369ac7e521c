"""Training of families of language models, on the ranks of this process group.

``test_families_on_ranks.py`` starts this module on two and on four processes, with the share of
texts that the student writes, and ``sharded`` or ``replicated``.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import Tensor, nn

from instil.core import Net, Scheme
from instil.engine import Engine, Optimization, rank, world_size
from instil.objectives.logits.jsd import JSD
from instil.schemes.language.on_policy import OnPolicy
from instil.students.lora import lora
from instil.tasks.language import call
from instil.teachers.frozen import Frozen
from instil.training.step import train_step
from tests.schemes.texts import SAMPLING, prompts
from tests.tasks.bases.causal_families import tiny_model

FAMILIES: dict[str, dict[str, float]] = {
    "llama": {},
    # Processes draw other numbers for dropout.
    "gpt2": {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0},
    "qwen3": {},
    "gemma3_text": {},
    "phi": {},
    "olmoe": {},
}
"""Families of language models, and options of their configurations."""
STEPS = 20
SIZE = 12
SHARES = {1: (12,), 2: (7, 5), 4: (4, 1, 5, 2)}
"""Rows of each process, by the number of processes."""


def student_of(family: str, is_adapted: bool) -> nn.Module:
    model: nn.Module = tiny_model(family, **FAMILIES[family])
    if not is_adapted:
        return model
    torch.manual_seed(1)
    return lora(model, rank=2)


def teacher_of(family: str) -> Net:
    model: nn.Module = tiny_model(family, **FAMILIES[family])
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2.0)
    return Net(model, call)


def scheme_of(family: str, is_adapted: bool, share: float) -> Scheme:
    """Scheme whose student writes the texts of a share of the steps."""
    student = Net(student_of(family, is_adapted), call)
    return OnPolicy(student, Frozen(teacher_of(family)), {"jsd": JSD()}, share, SAMPLING)


def trained(scheme: Scheme, is_sharded: bool) -> Tensor:
    """Return all trained weights after all steps."""
    scheme.prepare(prompts(99, SIZE))
    engine = Engine("cpu", shard=is_sharded, clip=1.0)
    engine.setup(scheme, lambda learner: Optimization("sgd", {"lr": 0.1, "momentum": 0.9}))
    scheme.train()
    for step in range(STEPS):
        clock = {
            "step": torch.tensor(step),
            "progress": torch.tensor(step / STEPS),
            "seed": torch.tensor(0),
        }
        share = {
            key: value.split(SHARES[world_size()])[rank()]
            for key, value in prompts(step, SIZE).items()
        }
        train_step(engine, scheme, [share | clock])
    student = engine.release(scheme).student
    return torch.cat([p.detach().flatten() for p in student.parameters() if p.requires_grad])


def all_trained(share: float, is_sharded: bool) -> dict[str, Tensor]:
    """Return the weights of the students of all families, whole and with adapters."""
    weights = {}
    for family in FAMILIES:
        for name, is_adapted in ((family, False), (f"{family} with adapters", True)):
            weights[name] = trained(scheme_of(family, is_adapted, share), is_sharded)
    return weights


def main() -> None:
    """Train all students, and write their weights."""
    # The first engine joins the processes.
    Engine("cpu")
    ends = all_trained(float(sys.argv[2]), sys.argv[3] == "sharded")
    if rank() == 0:
        torch.save(ends, Path(sys.argv[1]))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
