"""Time and memory of divergences between two language models' heads, ours beside what trainers do,
in one run.

python benchmarks/language.py [--tokens 1024] [--vocabulary 49152] [--width 576] [--rounds 5]
[--threads 1] [--device cpu] [--json [FILE]]

Each formulation goes from the hidden states of student and teacher to the gradient of the student's
hidden states and head. ``trl_jsd`` is the generalised Jensen-Shannon divergence as TRL's GKD
trainer writes it, ``liger_jsd`` the same in Liger's chunks of 1,024 tokens with gradients taken
chunk by chunk, ``naive_kl`` the two softmaxes and ``kl_div`` of a first attempt: plain PyTorch,
written from their descriptions. The formulations take turns; a time is the least over the rounds,
in processor time on one thread, else elapsed. Memory is the most that is held beyond the inputs,
gradients included; ``MiB_jsd_of_N_tokens`` says what it is at other numbers of tokens less the
gradient of the hidden states, which is as large as these. Every formulation must give loss and
gradients of ``trl_jsd`` or ``naive_kl``, or the run ends with an error.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from instil.objectives.logits.forward_kl import forward_kl_loss
from instil.objectives.logits.jsd import jsd_loss
from instil.objectives.logits.reverse_kl import reverse_kl_loss
from instil.roles import Projection

BETA = 0.5
Inputs = tuple[Tensor, Tensor, Tensor, Tensor]
"""Hidden states and head weight of the student, and of the teacher."""
Formulation = Callable[[Inputs], tuple[Tensor, Tensor, Tensor]]
"""The loss, and its gradients by the student's hidden states and head."""


def inputs(tokens: int, vocabulary: int, width: int, device: str) -> Inputs:
    """Hidden states of unit variance, and heads that give logits with a standard deviation of about
    2.
    """
    generator = torch.Generator().manual_seed(0)
    sides = [
        (
            torch.randn(tokens, width, generator=generator),
            torch.randn(vocabulary, width, generator=generator) * 2 / width**0.5,
        )
        for _ in range(2)
    ]
    (mine, my_head), (theirs, their_head) = [
        tuple(part.to(device) for part in side) for side in sides
    ]
    return mine.requires_grad_(), my_head.requires_grad_(), theirs, their_head


def by_autograd(loss: Callable[[Tensor, Tensor], Tensor]) -> Formulation:
    """A loss of both sides' logits, which are made whole."""

    def run(given: Inputs) -> tuple[Tensor, Tensor, Tensor]:
        hidden, weight, their_hidden, their_weight = given
        value = loss(hidden @ weight.mT, their_hidden @ their_weight.mT)
        return value.detach(), *torch.autograd.grad(value, (hidden, weight))

    return run


def naive_kl(student: Tensor, teacher: Tensor) -> Tensor:
    return F.kl_div(student.log_softmax(-1), teacher.softmax(-1), reduction="batchmean")


def trl_jsd(student: Tensor, teacher: Tensor) -> Tensor:
    """Mixture by logsumexp of the stacked log-probabilities, both divergences elementwise, the mask
    by indexing.
    """
    student, teacher = student.log_softmax(-1), teacher.log_softmax(-1)
    beta = torch.tensor(BETA, dtype=student.dtype, device=student.device)
    mixture = torch.logsumexp(
        torch.stack([student + torch.log(1 - beta), teacher + torch.log(beta)]), dim=0
    )
    of_teacher = F.kl_div(mixture, teacher, reduction="none", log_target=True)
    of_student = F.kl_div(mixture, student, reduction="none", log_target=True)
    counted = torch.ones(len(student), dtype=torch.bool, device=student.device)
    values = (beta * of_teacher + (1 - beta) * of_student)[counted]
    return values.sum() / counted.sum()


def liger_jsd(given: Inputs, chunk: int = 1024) -> tuple[Tensor, Tensor, Tensor]:
    """Loss and gradients of one chunk of tokens after the other, by ``torch.func``; logits are
    raised to float32.
    """
    hidden, weight, their_hidden, their_weight = (tensor.detach() for tensor in given)

    def of_chunk(mine: Tensor, head: Tensor, theirs: Tensor) -> Tensor:
        student, teacher = (
            (mine @ head.mT).float().log_softmax(-1),
            (theirs @ their_weight.mT).float().log_softmax(-1),
        )
        mixture = torch.log(BETA * teacher.exp() + (1 - BETA) * student.exp())
        of_teacher = F.kl_div(mixture, teacher, reduction="sum", log_target=True)
        return (
            BETA * of_teacher
            + (1 - BETA) * F.kl_div(mixture, student, reduction="sum", log_target=True)
        ) / len(hidden)

    value, of_weight, of_hidden = hidden.new_zeros(()), torch.zeros_like(weight), []
    for mine, theirs in zip(hidden.split(chunk), their_hidden.split(chunk), strict=True):
        (row, shared), part = torch.func.grad_and_value(of_chunk, argnums=(0, 1))(
            mine, weight, theirs
        )
        of_hidden.append(row)
        of_weight += shared
        value = value + part
    return value, torch.cat(of_hidden), of_weight


def ours(loss: Callable[[Projection, Projection], Tensor]) -> Formulation:
    def run(given: Inputs) -> tuple[Tensor, Tensor, Tensor]:
        hidden, weight, their_hidden, their_weight = given
        value = loss(Projection(hidden, weight), Projection(their_hidden, their_weight))
        return value.detach(), *torch.autograd.grad(value, (hidden, weight))

    return run


FORMULATIONS: dict[str, Formulation] = {
    "naive_kl": by_autograd(naive_kl),
    "trl_jsd": by_autograd(trl_jsd),
    "liger_jsd": liger_jsd,
    "forward_kl": ours(forward_kl_loss),
    "reverse_kl": ours(reverse_kl_loss),
    "jsd": ours(lambda student, teacher: jsd_loss(student, teacher, BETA)),
}
ALIKE = (("forward_kl", "naive_kl"), ("jsd", "trl_jsd"), ("liger_jsd", "trl_jsd"))


def seconds(run: Formulation, given: Inputs, threads: int) -> float:
    """Of one pass."""
    on_gpu = given[0].device.type == "cuda"
    clock = time.process_time if threads == 1 and not on_gpu else time.perf_counter
    wait = torch.cuda.synchronize if on_gpu else lambda: None
    wait()
    began = clock()
    run(given)
    wait()
    return clock() - began


def most_memory(run: Formulation, given: Inputs) -> int:
    """Bytes that a pass holds at most, beyond what is there before."""
    if given[0].device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run(given)
        return torch.cuda.max_memory_allocated() - before
    with torch.autograd.profiler.profile(profile_memory=True) as profile:
        run(given)
    events = sorted(
        (event.start_ns(), event.nbytes())
        for event in profile.kineto_results.events()
        if event.name() == "[memory]"
    )
    held = most = 0
    for _, change in events:
        held += change
        most = max(most, held)
    return most


def require_alike(found: dict[str, tuple[Tensor, ...]]) -> None:
    """RuntimeError where two formulations of one loss differ by more than float32 rounding."""
    for one, other in ALIKE:
        for what, mine, theirs in zip(
            ("loss", "gradient of the hidden states", "gradient of the head"),
            found[one],
            found[other],
            strict=True,
        ):
            off = float((mine - theirs).abs().max() / theirs.abs().max())
            if not off < 1e-3:
                raise RuntimeError(f"the {what} of {one} is off by {off:.1e} of {other}'s")


def measure(arguments: argparse.Namespace) -> dict[str, object]:
    """Everything there is to say, flat."""
    torch.set_num_threads(arguments.threads)
    given = inputs(arguments.tokens, arguments.vocabulary, arguments.width, arguments.device)
    memory = {name: most_memory(run, given) for name, run in FORMULATIONS.items()}
    require_alike({name: run(given) for name, run in FORMULATIONS.items() if name != "reverse_kl"})
    taken: dict[str, list[float]] = {name: [] for name in FORMULATIONS}
    for turn in range(arguments.rounds):
        for name in sorted(FORMULATIONS, reverse=turn % 2 == 1):
            taken[name].append(seconds(FORMULATIONS[name], given, arguments.threads))
    least = {name: min(values) for name, values in taken.items()}
    grown = {}
    for tokens in (arguments.tokens, 2 * arguments.tokens, 4 * arguments.tokens):
        more = inputs(tokens, arguments.vocabulary, arguments.width, arguments.device)
        grown[str(tokens)] = most_memory(FORMULATIONS["jsd"], more) - 4 * tokens * arguments.width
    return {
        "memory_ratio_to_trl_jsd": memory["jsd"] / memory["trl_jsd"],
        "time_ratio_to_trl_jsd": least["jsd"] / least["trl_jsd"],
        "time_ratio_to_naive_kl": least["forward_kl"] / least["naive_kl"],
        "memory_ratio_to_liger_jsd": memory["jsd"] / memory["liger_jsd"],
        "time_ratio_to_liger_jsd": least["jsd"] / least["liger_jsd"],
        "memory_ratio_to_naive_kl": memory["forward_kl"] / memory["naive_kl"],
        **{f"seconds_{name}": round(value, 4) for name, value in least.items()},
        **{f"MiB_{name}": round(value / 2**20, 1) for name, value in memory.items()},
        **{
            f"MiB_jsd_of_{tokens}_tokens": round(value / 2**20, 1)
            for tokens, value in grown.items()
        },
        **{
            name: getattr(arguments, name)
            for name in ("tokens", "vocabulary", "width", "rounds", "threads", "device")
        },
        "torch": torch.__version__,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (
        ("tokens", 1024),
        ("vocabulary", 49152),
        ("width", 576),
        ("rounds", 5),
        ("threads", 1),
    ):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--json", nargs="?", const="", help="print the numbers as JSON, or write them to this file"
    )
    arguments = parser.parse_args()
    found = measure(arguments)
    if arguments.json == "":
        print(json.dumps(found, indent=1))
        return
    for name, value in found.items():
        print(f"{name:26} {value:.3f}" if isinstance(value, float) else f"{name:26} {value}")
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
