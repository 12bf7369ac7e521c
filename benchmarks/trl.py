"""Processor time and memory of a distillation step, compared with TRL and with a plain loop.

python benchmarks/trl.py [--rounds 5] [--steps 4] [--json benchmarks/trl.json]

Needs ``pip install trl datasets``. Student and teacher are Llama models with random weights on one
thread of a CPU. All sides start from the same weights and read the same rows in the same order;
first, their losses are compared. Then they take turns, round by round, in one process. A ratio is
the time or the memory of instil divided by that of the other side.

- ``offline``: forward KL on the text of the data. TRL: ``GKDTrainer`` with ``lmbda=0, beta=0``.
- ``recorded``: the same with teacher outputs that were computed before. TRL has no counterpart.
- ``on_policy``: reverse KL on the student's own text. TRL: ``DistillationTrainer``, ``beta=1``.
- ``rollouts``: the generation alone, compared with ``generate`` of transformers with its usual and
  with its static cache.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from instil import ForwardKL, Frozen, Net, Offline, OnPolicy, Optimization, ReverseKL, Training, fit
from instil.core import Batch
from instil.experiment.cached_teacher import CachedTeacher
from instil.files.atomic import atomic
from instil.generation.options import Sampling
from instil.generation.rollout import generate_text
from instil.tasks.bases.peak_memory import PeakMemory
from instil.tasks.language import call

RATE = 1e-3
TOLERANCE = 2e-4
"""Largest relative difference between two losses of one step."""


class Size(NamedTuple):
    """Widths and depths of student and teacher, number of tokens, and shape of a batch."""

    student: tuple[int, int]
    teacher: tuple[int, int]
    vocabulary: int
    rows: int = 8
    prompt: int = 16
    answer: int = 48

    @property
    def end(self) -> int:
        """End token, the last one."""
        return self.vocabulary - 1


SIZES = {
    "tiny": Size((64, 2), (128, 2), 2048),
    "small": Size((128, 3), (256, 3), 8192, rows=4),
}
LONG = Size((64, 2), (128, 2), 8192, rows=16, prompt=32, answer=224)
"""Size with more tokens in a batch, for the memory only."""


class Job(NamedTuple):
    """Training of one side.

    Attributes:
        size: sizes of the networks and the batches.
        steps: number of steps.
        clock: called at the end of each step.
        checks: return the losses; texts are then the most likely ones, equal for all sides.
    """

    size: Size
    steps: int
    clock: Callable[[], None]
    checks: bool = False


Side = Callable[[Job], list[float]]
"""Trains and returns the loss of each step, if the job checks them."""


def llama(shape: tuple[int, int], size: Size, seed: int) -> Any:
    """Return a Llama model with random weights."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=size.vocabulary,
        hidden_size=shape[0],
        intermediate_size=3 * shape[0],
        num_hidden_layers=shape[1],
        num_attention_heads=shape[0] // 32,
        max_position_embeddings=256,
        bos_token_id=0,
        eos_token_id=size.end,
        pad_token_id=size.end,
        initializer_range=0.1,
    )
    return LlamaForCausalLM(config)


def models(size: Size) -> tuple[Any, Any]:
    """Return student and teacher; every call returns equal weights."""
    teacher = llama(size.teacher, size, 1).eval().requires_grad_(False)
    return llama(size.student, size, 0), teacher


def texts(size: Size, steps: int) -> list[Tensor]:
    """Return the tokens (N, T) of the batch of each step."""
    generator = torch.Generator().manual_seed(2)
    shape = (size.rows, size.prompt + size.answer)
    return [torch.randint(0, size.end, shape, generator=generator) for _ in range(steps)]


def batches(size: Size, steps: int) -> list[Batch]:
    """Return the same rows as batches of instil."""
    result = []
    for step, tokens in enumerate(texts(size, steps)):
        ids = tokens[:, :-1]
        valid = torch.zeros(ids.shape, dtype=torch.bool)
        valid[:, size.prompt - 1 :] = True
        result.append(
            {
                "input_ids": ids,
                "attention_mask": torch.ones_like(ids),
                "valid": valid,
                "label": tokens[:, 1:].masked_fill(~valid, -100),
                "index": step * size.rows + torch.arange(size.rows),
            }
        )
    return result


def trained(scheme: Any, loader: list[Batch], job: Job) -> list[float]:
    """Train a scheme of instil on each batch once."""
    losses: list[float] = []
    settings = Training(
        epochs=1,
        optimizer=Optimization("adamw", {"lr": RATE, "weight_decay": 0.0}),
        schedule="constant",
        device="cpu",
        evaluate_steps=1 if job.checks else None,
    )
    fit(
        scheme,
        loader,
        settings,
        on_step=lambda _: job.clock(),
        report=lambda record: losses.append(sum(record["losses"].values())),
    )
    return losses[: len(loader)]


def instil_offline(job: Job) -> list[float]:
    student, teacher = models(job.size)
    scheme = Offline(Net(student, call), Frozen(Net(teacher, call)), {"forward_kl": ForwardKL()})
    return trained(scheme, batches(job.size, job.steps), job)


def instil_recorded(job: Job) -> list[float]:
    student, teacher = models(job.size)
    loader = batches(job.size, job.steps)
    recorded = CachedTeacher(Frozen(Net(teacher, call)), ("projection",), loader)
    scheme = Offline(Net(student, call), recorded, {"forward_kl": ForwardKL()})
    return trained(scheme, loader, job)


def instil_on_policy(job: Job) -> list[float]:
    student, teacher = models(job.size)
    sampling = Sampling(temperature=0.0 if job.checks else 1.0, eos_token_id=job.size.end)
    scheme = OnPolicy(
        Net(student, call),
        Frozen(Net(teacher, call)),
        {"reverse_kl": ReverseKL()},
        1.0,
        sampling,
    )
    return trained(scheme, batches(job.size, job.steps), job)


def loop(
    job: Job,
    rows: list[Tensor],
    make_text: Callable[[nn.Module, Tensor], Tensor],
    teacher_logits: Callable[[int, Tensor], Tensor],
    is_reverse: bool,
) -> list[float]:
    """Train the student in a plain loop with the logits of transformers and ``F.kl_div``."""
    size = job.size
    student, _ = models(size)
    student.train()
    optimizer = torch.optim.AdamW(student.parameters(), lr=RATE, weight_decay=0.0)
    losses = []
    for step, tokens in enumerate(rows):
        ids = make_text(student, tokens)
        target = teacher_logits(step, ids)[:, size.prompt - 1 :].log_softmax(-1)
        logits = student(input_ids=ids[:, :-1], use_cache=False).logits
        own = logits[:, size.prompt - 1 :].log_softmax(-1)
        pair = (target, own) if is_reverse else (own, target)
        values = F.kl_div(*pair, reduction="none", log_target=True).sum(-1)
        new = ids[:, size.prompt :]
        mask = ((new == size.end).cumsum(1) - (new == size.end).long() == 0).float()
        loss = (values * mask).sum() / mask.sum()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
        job.clock()
    return losses


def unchanged(student: nn.Module, tokens: Tensor) -> Tensor:
    return tokens


def live(teacher: Any) -> Callable[[int, Tensor], Tensor]:
    """Return the logits of a teacher for the tokens of a step."""

    def logits(step: int, ids: Tensor) -> Tensor:
        with torch.no_grad():
            result: Tensor = teacher(input_ids=ids[:, :-1], use_cache=False).logits
        return result

    return logits


def loop_offline(job: Job) -> list[float]:
    teacher = live(models(job.size)[1])
    return loop(job, texts(job.size, job.steps), unchanged, teacher, False)


def loop_recorded(job: Job) -> list[float]:
    rows = texts(job.size, job.steps)
    teacher = live(models(job.size)[1])
    stored = [teacher(step, ids) for step, ids in enumerate(rows)]
    return loop(job, rows, unchanged, lambda step, ids: stored[step], False)


def generated(
    student: Any, tokens: Tensor, size: Size, is_greedy: bool, cache: str | None = None
) -> Tensor:
    """Return the prompts with the texts of ``generate`` of transformers."""
    prompts = tokens[:, : size.prompt]
    student.eval()
    ids: Tensor = student.generate(
        input_ids=prompts,
        attention_mask=torch.ones_like(prompts),
        **({"do_sample": False} if is_greedy else {"do_sample": True, "top_k": 0}),
        max_new_tokens=size.answer,
        cache_implementation=cache,
        disable_compile=True,
    )
    student.train()
    missing = size.prompt + size.answer - ids.shape[1]
    return F.pad(ids, (0, missing), value=size.end)


def loop_on_policy(job: Job) -> list[float]:
    def make_text(student: nn.Module, tokens: Tensor) -> Tensor:
        return generated(student, tokens, job.size, job.checks)

    return loop(job, texts(job.size, job.steps), make_text, live(models(job.size)[1]), True)


def tokenizer_of(size: Size) -> Any:
    """Return a tokenizer whose words are ``t0``, ``t1``, ..."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from transformers import PreTrainedTokenizerFast

    words = {f"t{index}": index for index in range(size.vocabulary)}
    inner = Tokenizer(WordLevel(words, unk_token="t0"))
    inner.pre_tokenizer = WhitespaceSplit()
    end = f"t{size.end}"
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token=end, pad_token=end)


def trl_options(job: Job, folder: str) -> dict[str, Any]:
    """Return the options of both trainers of TRL."""
    return {
        "output_dir": folder,
        "per_device_train_batch_size": job.size.rows,
        "max_steps": job.steps,
        "learning_rate": RATE,
        "lr_scheduler_type": "constant",
        "warmup_steps": 0,
        "weight_decay": 0.0,
        "max_grad_norm": 0.0,
        "optim": "adamw_torch",
        "logging_strategy": "steps" if job.checks else "no",
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": [],
        "use_cpu": True,
        "bf16": False,
        "disable_tqdm": True,
        "gradient_checkpointing": False,
        "dataloader_pin_memory": False,
    }


def trl_train(trainer: Any, job: Job) -> list[float]:
    """Train with a trainer of TRL."""
    from torch.utils.data import SequentialSampler
    from transformers import TrainerCallback

    class Ticking(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            job.clock()

    trainer.add_callback(Ticking())
    trainer._get_train_sampler = lambda dataset=None: SequentialSampler(trainer.train_dataset)
    with contextlib.redirect_stdout(sys.stderr):
        trainer.train()
    return [float(entry["loss"]) for entry in trainer.state.log_history if "loss" in entry]


def trl_offline(job: Job) -> list[float]:
    from datasets import Dataset
    from trl.experimental.gkd import GKDConfig, GKDTrainer

    student, teacher = models(job.size)
    rows = torch.cat(texts(job.size, job.steps))

    def collate(entries: list[dict[str, Any]]) -> dict[str, Tensor]:
        ids = torch.tensor([entry["input_ids"] for entry in entries])
        labels = ids.clone()
        labels[:, : job.size.prompt] = -100
        prompts = ids[:, : job.size.prompt]
        return {
            "input_ids": ids,
            "attention_mask": torch.ones_like(ids),
            "labels": labels,
            "prompts": prompts,
            "prompt_attention_mask": torch.ones_like(prompts),
        }

    with tempfile.TemporaryDirectory() as folder:
        options = trl_options(job, folder)
        config = GKDConfig(lmbda=0.0, beta=0.0, temperature=1.0, **options)
        trainer = GKDTrainer(
            model=student,
            teacher_model=teacher,
            args=config,
            data_collator=collate,
            train_dataset=Dataset.from_dict({"input_ids": rows.tolist()}),
            processing_class=tokenizer_of(job.size),
        )
        return trl_train(trainer, job)


def trl_on_policy(job: Job) -> list[float]:
    from datasets import Dataset
    from trl import DistillationConfig, DistillationTrainer

    student, teacher = models(job.size)
    prompts = torch.cat(texts(job.size, job.steps))[:, : job.size.prompt].tolist()
    words = [" ".join(f"t{token}" for token in row) for row in prompts]
    with tempfile.TemporaryDirectory() as folder:
        config = DistillationConfig(
            beta=1.0,
            temperature=1.0,
            top_k=1 if job.checks else 0,
            max_completion_length=job.size.answer,
            shuffle_dataset=False,
            **trl_options(job, folder),
        )
        trainer = DistillationTrainer(
            model=student,
            teacher_model=teacher,
            args=config,
            train_dataset=Dataset.from_dict({"prompt": words}),
            processing_class=tokenizer_of(job.size),
        )
        return trl_train(trainer, job)


KINDS: dict[str, dict[str, Side]] = {
    "offline": {"instil": instil_offline, "TRL": trl_offline, "loop": loop_offline},
    "recorded": {"instil": instil_recorded, "loop": loop_recorded},
    "on_policy": {"instil": instil_on_policy, "TRL": trl_on_policy, "loop": loop_on_policy},
}


def check_losses(sides: dict[str, Side], size: Size, steps: int = 4) -> dict[str, list[float]]:
    """Compare the losses of all sides.

    Raises:
        AssertionError: if they differ.
    """
    job = Job(size, steps, lambda: None, checks=True)
    losses = {name: side(job) for name, side in sides.items()}
    for name, values in losses.items():
        for own, other in zip(losses["instil"], values, strict=True):
            assert abs(own - other) <= TOLERANCE * abs(own), f"{name}: {losses}"
    return losses


def step_seconds(side: Side, size: Size, steps: int) -> float:
    """Return the shortest processor time of a step; the first one is left out."""
    ends: list[float] = []
    side(Job(size, steps + 1, lambda: ends.append(time.process_time())))
    return min(after - before for before, after in pairwise(ends))


def peak_bytes(side: Side, size: Size) -> int:
    """Return the largest size of the tensors that exist at once in the second and third step."""
    peaks: list[int] = []
    base: list[int] = []
    memory = PeakMemory()

    def clock() -> None:
        peaks.append(memory.peak)
        base.append(memory.now)
        memory.peak = memory.now

    with memory:
        side(Job(size, 3, clock))
    return max(peaks[1:]) - base[0]


def compare(kind: str, size: Size, rounds: int, steps: int) -> dict[str, Any]:
    """Measure all sides of a kind of training in turns."""
    sides = KINDS[kind]
    check_losses(sides, size)
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            seconds[name].append(step_seconds(side, size, steps))
    own = seconds.pop("instil")
    times = {f"time_{name}": ratios(own, values) for name, values in seconds.items()}
    return times | memory_ratios(sides, size)


def ratios(own: list[float], other: list[float]) -> list[float]:
    """Return median, minimum and maximum over the rounds of the ratio of two times."""
    values = [left / right for left, right in zip(own, other, strict=True)]
    return [round(value, 2) for value in (statistics.median(values), min(values), max(values))]


def compare_rollouts(size: Size, rounds: int) -> dict[str, Any]:
    """Measure the generation of texts in turns with both caches of ``generate``."""
    student, _ = models(size)
    net = Net(student, call)
    (tokens,), (batch,) = texts(size, 1), batches(size, 1)
    greedy = generate_text(net, batch, size.end, temperature=0.0)
    for cache in (None, "static"):
        expected = generated(student, tokens, size, True, cache)[:, 1:]
        is_new = greedy["valid"]
        assert torch.equal(greedy["token"][is_new], expected[is_new]), cache
    sides: dict[str, Callable[[], Any]] = {
        "instil": lambda: generate_text(net, batch, size.end),
        "generate": lambda: generated(student, tokens, size, False),
        "static": lambda: generated(student, tokens, size, False, "static"),
    }
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for round_index in range(rounds + 1):
        for name, side in sides.items():
            start = time.process_time()
            side()
            # The first round fills the caches of the libraries.
            if round_index:
                seconds[name].append(time.process_time() - start)
    own = seconds.pop("instil")
    return {f"time_{name}": ratios(own, values) for name, values in seconds.items()}


def memory_ratios(sides: dict[str, Side], size: Size) -> dict[str, float]:
    """Return the peak of instil divided by that of each other side."""
    peaks = {name: peak_bytes(side, size) for name, side in sides.items()}
    own = peaks.pop("instil")
    return {f"memory_{name}": round(own / peak, 2) for name, peak in peaks.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    # This file must not hide the package trl.
    here = Path(__file__).resolve().parent
    sys.path[:] = [path for path in sys.path if Path(path).resolve() != here]
    import transformers
    import trl

    torch.set_num_threads(1)
    rows = []
    for size_name, size in SIZES.items():
        for kind in KINDS:
            start = time.process_time()
            row = compare(kind, size, options.rounds, options.steps)
            rows.append({"size": size_name, "kind": kind} | row)
            print(json.dumps(rows[-1]), f"{time.process_time() - start:.0f} s", file=sys.stderr)
        row = compare_rollouts(size, options.rounds)
        rows.append({"size": size_name, "kind": "rollouts"} | row)
        print(json.dumps(rows[-1]), file=sys.stderr)
    rows.append({"size": "long", "kind": "offline"} | memory_ratios(KINDS["offline"], LONG))
    print(json.dumps(rows[-1]), file=sys.stderr)
    content = {
        "date": time.strftime("%Y-%m-%d"),
        "versions": {
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "trl": trl.__version__,
        },
        "rounds": options.rounds,
        "steps": options.steps,
        "sizes": {name: size._asdict() for name, size in (SIZES | {"long": LONG}).items()},
        "rows": rows,
    }
    text = json.dumps(content, indent=1) + "\n"
    if options.json is None:
        print(text)
        return
    with atomic(options.json) as temporary:
        temporary.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
