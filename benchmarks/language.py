"""Time and memory of divergences between the heads of two language models.

python benchmarks/language.py [--tokens 1024] [--vocabulary 49152] [--width 576] [--rounds 5]
[--threads 1] [--device cpu] [--json [FILE]]

Each formulation goes from the hidden states of student and teacher to the gradient of the student's
hidden states and head. Three formulations are plain PyTorch, written from their descriptions:

- ``trl_jsd``: the generalised Jensen-Shannon divergence of TRL's GKD trainer.
- ``liger_jsd``: the same in Liger's chunks of 1,024 tokens, with gradients computed per chunk.
- ``naive_kl``: two softmaxes and ``kl_div``.

The formulations take turns. A time is the minimum over the rounds: processor time with one thread,
otherwise elapsed time. Memory is the peak beyond the inputs, including gradients.
``MiB_jsd_of_N_tokens`` is the memory for other numbers of tokens, without the gradient of the
hidden states. Loss and gradients of every formulation must equal those of ``trl_jsd`` or
``naive_kl``; otherwise the run ends with an error.
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
"""Function that returns the loss and its gradients for the student's hidden states and head."""


def inputs(tokens: int, vocabulary: int, width: int, device: str) -> Inputs:
    """Return hidden states of unit variance, and heads whose logits have a deviation of about 2."""
    generator = torch.Generator().manual_seed(0)
    sides = [
        (
            torch.randn(tokens, width, generator=generator),
            torch.randn(vocabulary, width, generator=generator) * 2 / width**0.5,
        )
        for _ in range(2)
    ]
    (student_hidden, student_head), (teacher_hidden, teacher_head) = [
        tuple(part.to(device) for part in side) for side in sides
    ]
    return (
        student_hidden.requires_grad_(),
        student_head.requires_grad_(),
        teacher_hidden,
        teacher_head,
    )


def by_autograd(loss: Callable[[Tensor, Tensor], Tensor]) -> Formulation:
    """Return the formulation of a loss that reads the whole logits of both sides."""

    def run(sample: Inputs) -> tuple[Tensor, Tensor, Tensor]:
        hidden, weight, teacher_hidden, teacher_weight = sample
        value = loss(hidden @ weight.mT, teacher_hidden @ teacher_weight.mT)
        return value.detach(), *torch.autograd.grad(value, (hidden, weight))

    return run


def naive_kl(student: Tensor, teacher: Tensor) -> Tensor:
    return F.kl_div(student.log_softmax(-1), teacher.softmax(-1), reduction="batchmean")


def trl_jsd(student: Tensor, teacher: Tensor) -> Tensor:
    """Use logsumexp of stacked log-probabilities, elementwise divergences and a mask by index."""
    student, teacher = student.log_softmax(-1), teacher.log_softmax(-1)
    beta = torch.tensor(BETA, dtype=student.dtype, device=student.device)
    mixture = torch.logsumexp(
        torch.stack([student + torch.log(1 - beta), teacher + torch.log(beta)]), dim=0
    )
    teacher_kl = F.kl_div(mixture, teacher, reduction="none", log_target=True)
    student_kl = F.kl_div(mixture, student, reduction="none", log_target=True)
    counted = torch.ones(len(student), dtype=torch.bool, device=student.device)
    values = (beta * teacher_kl + (1 - beta) * student_kl)[counted]
    return values.sum() / counted.sum()


def liger_jsd(sample: Inputs, chunk: int = 1024) -> tuple[Tensor, Tensor, Tensor]:
    """Compute loss and gradients chunk by chunk with ``torch.func``; logits are float32."""
    hidden, weight, teacher_hidden, teacher_weight = (tensor.detach() for tensor in sample)

    def chunk_loss(student_chunk: Tensor, head: Tensor, teacher_chunk: Tensor) -> Tensor:
        student, teacher = (
            (student_chunk @ head.mT).float().log_softmax(-1),
            (teacher_chunk @ teacher_weight.mT).float().log_softmax(-1),
        )
        mixture = torch.log(BETA * teacher.exp() + (1 - BETA) * student.exp())
        teacher_kl = F.kl_div(mixture, teacher, reduction="sum", log_target=True)
        return (
            BETA * teacher_kl
            + (1 - BETA) * F.kl_div(mixture, student, reduction="sum", log_target=True)
        ) / len(hidden)

    value, weight_grad, hidden_grads = hidden.new_zeros(()), torch.zeros_like(weight), []
    for student_chunk, teacher_chunk in zip(
        hidden.split(chunk), teacher_hidden.split(chunk), strict=True
    ):
        (row, shared), part = torch.func.grad_and_value(chunk_loss, argnums=(0, 1))(
            student_chunk, weight, teacher_chunk
        )
        hidden_grads.append(row)
        weight_grad += shared
        value = value + part
    return value, torch.cat(hidden_grads), weight_grad


def fused(loss: Callable[[Projection, Projection], Tensor]) -> Formulation:
    def run(sample: Inputs) -> tuple[Tensor, Tensor, Tensor]:
        hidden, weight, teacher_hidden, teacher_weight = sample
        value = loss(Projection(hidden, weight), Projection(teacher_hidden, teacher_weight))
        return value.detach(), *torch.autograd.grad(value, (hidden, weight))

    return run


FORMULATIONS: dict[str, Formulation] = {
    "naive_kl": by_autograd(naive_kl),
    "trl_jsd": by_autograd(trl_jsd),
    "liger_jsd": liger_jsd,
    "forward_kl": fused(forward_kl_loss),
    "reverse_kl": fused(reverse_kl_loss),
    "jsd": fused(lambda student, teacher: jsd_loss(student, teacher, BETA)),
}
SAME_LOSS = (("forward_kl", "naive_kl"), ("jsd", "trl_jsd"), ("liger_jsd", "trl_jsd"))


def seconds(run: Formulation, sample: Inputs, threads: int) -> float:
    """Return the seconds of one pass."""
    on_gpu = sample[0].device.type == "cuda"
    clock = time.process_time if threads == 1 and not on_gpu else time.perf_counter
    wait = torch.cuda.synchronize if on_gpu else lambda: None
    wait()
    start = clock()
    run(sample)
    wait()
    return clock() - start


def peak_memory(run: Formulation, sample: Inputs) -> int:
    """Return the peak bytes of a pass beyond the inputs."""
    if sample[0].device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run(sample)
        return torch.cuda.max_memory_allocated() - before
    with torch.autograd.profiler.profile(profile_memory=True) as profile:
        run(sample)
    events = sorted(
        (event.start_ns(), event.nbytes())
        for event in profile.kineto_results.events()
        if event.name() == "[memory]"
    )
    held = peak = 0
    for _, change in events:
        held += change
        peak = max(peak, held)
    return peak


def require_same_loss(results: dict[str, tuple[Tensor, ...]]) -> None:
    """Raise RuntimeError if two formulations of one loss differ by more than float32 rounding."""
    for one, other in SAME_LOSS:
        for what, value, reference in zip(
            ("loss", "gradient of the hidden states", "gradient of the head"),
            results[one],
            results[other],
            strict=True,
        ):
            error = float((value - reference).abs().max() / reference.abs().max())
            if not error < 1e-3:
                raise RuntimeError(
                    f"the {what} of {one} differs from that of {other} by {error:.1e}"
                )


def measure(arguments: argparse.Namespace) -> dict[str, object]:
    """Return all numbers as a flat table."""
    torch.set_num_threads(arguments.threads)
    sample = inputs(arguments.tokens, arguments.vocabulary, arguments.width, arguments.device)
    memory = {name: peak_memory(run, sample) for name, run in FORMULATIONS.items()}
    require_same_loss(
        {name: run(sample) for name, run in FORMULATIONS.items() if name != "reverse_kl"}
    )
    times: dict[str, list[float]] = {name: [] for name in FORMULATIONS}
    for turn in range(arguments.rounds):
        for name in sorted(FORMULATIONS, reverse=turn % 2 == 1):
            times[name].append(seconds(FORMULATIONS[name], sample, arguments.threads))
    least = {name: min(values) for name, values in times.items()}
    memory_of = {}
    for tokens in (arguments.tokens, 2 * arguments.tokens, 4 * arguments.tokens):
        larger = inputs(tokens, arguments.vocabulary, arguments.width, arguments.device)
        memory_of[str(tokens)] = (
            peak_memory(FORMULATIONS["jsd"], larger) - 4 * tokens * arguments.width
        )
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
            for tokens, value in memory_of.items()
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
    results = measure(arguments)
    if arguments.json == "":
        print(json.dumps(results, indent=1))
        return
    for name, value in results.items():
        print(f"{name:26} {value:.3f}" if isinstance(value, float) else f"{name:26} {value}")
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
