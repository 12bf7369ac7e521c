"""Text generation with heads of different padded sizes.

Padding is never generated; mixtures use the common tokens.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from instil import catalogue
from instil.core import Batch, Net, Objectives, Scheme
from instil.engine import Engine, Optimization
from instil.generation.options import Sampling
from instil.modules.data_tokens import DataTokens
from instil.objectives.labels.cross_entropy import CrossEntropy
from instil.objectives.logits.gold import GOLD
from instil.objectives.logits.kd import KD
from instil.objectives.logits.reverse_kl import ReverseKL
from instil.tasks.bases.causal_model import call
from instil.teachers.frozen import Frozen
from instil.training.step import train_step

TOKENS, STUDENT, TEACHER = 58, 60, 64
"""Tokens of the tokenizer, and the padded heads."""
SCHEMES = (
    "on_policy",
    "speculative",
    "sequence_level",
    "minillm",
    "kdrl",
    "distillm",
    "distillm2",
    "dpkd_written",
    "privileged_context",
)
OPTIONS: dict[str, dict[str, Any]] = {
    "on_policy": {"share": 1.0},
    "speculative": {"top_k": 2},
    "minillm": {"student_text_objectives": ["reverse_kl"], "teacher_mix": 0.5},
    "distillm": {"initial_prob": 1.0, "held_out": 0.1},
    "privileged_context": {"reader": "teacher"},
}


def padded_net(size: int, seed: int) -> Net:
    """Return a tiny Llama whose padding tokens have the largest logits."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(seed)
    config = transformers.LlamaConfig(
        vocab_size=size,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=32,
    )
    model = transformers.LlamaForCausalLM(config)
    with torch.no_grad():
        model.lm_head.weight[TOKENS:] *= 100
    return Net(model, call)


def prompts() -> Batch:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, TOKENS, (6, 13), generator=generator)
    valid = torch.arange(12)[None].expand(6, -1) >= torch.tensor([1, 2, 3, 4, 5, 3])[:, None]
    return {
        "input_ids": ids[:, :-1],
        "attention_mask": torch.ones(6, 12, dtype=torch.int64),
        "valid": valid,
        "label": ids[:, 1:].masked_fill(~valid, -100),
        "index": torch.arange(6),
        "context_ids": ids[:, :2],
        "context_mask": torch.ones(6, 2, dtype=torch.int64),
    }


def scheme_of(name: str, vocabulary: int | None) -> Scheme:
    losses: dict[str, Any] = {"cross_entropy": CrossEntropy()}
    if name not in ("sequence_level", "distillm2"):
        losses["reverse_kl"] = ReverseKL(vocabulary=None if vocabulary else STUDENT)
    if vocabulary and "reverse_kl" in losses and name != "speculative":
        losses |= {"kd": KD(), "gold": GOLD()}
    objectives = Objectives(losses)
    if vocabulary:
        objectives.selection = DataTokens(vocabulary, vocabulary)
    kind = catalogue.find("scheme", name)
    options = OPTIONS.get(name, {}) | {"sampling": Sampling(vocabulary=vocabulary)}
    instance: Scheme = kind(
        padded_net(STUDENT, 0), Frozen(padded_net(TEACHER, 1)), objectives, **options
    )
    return instance


def written_tokens(batch: Batch) -> Tensor:
    texts = [batch["input_ids"]]
    texts += [batch["student_text"]["input_ids"]] if "student_text" in batch else []
    texts += [batch["rejected_input_ids"]] if "rejected_input_ids" in batch else []
    return torch.cat([text.flatten() for text in texts])


@pytest.mark.parametrize("vocabulary", [TOKENS, None])
@pytest.mark.parametrize("name", SCHEMES)
def test_padding_is_not_written(name: str, vocabulary: int | None) -> None:
    scheme = scheme_of(name, vocabulary)
    scheme.train().prepare(prompts())
    engine = Engine("cpu")
    engine.setup(scheme, lambda learner: Optimization("sgd", {"lr": 0.1}))
    for step in range(3):
        clock = {"step": torch.tensor(step), "progress": torch.tensor(0.0), "seed": torch.tensor(0)}
        batch = prompts() | clock
        text = scheme.before_step(dict(batch))
        assert not torch.equal(
            written_tokens(text)[: batch["input_ids"].numel()], batch["input_ids"]
        )
        assert int(written_tokens(text).max()) < (vocabulary or STUDENT)
        losses = train_step(engine, scheme, [batch])
        assert all(torch.tensor(float(value)).isfinite() for value in losses.values())


def test_a_limit_above_the_smaller_head_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"scheme\.sampling\.vocabulary: .* Expected at most 60, got 61"
    ):
        scheme_of("on_policy", 61).prepare(prompts())


def test_an_end_that_is_no_token_is_refused() -> None:
    objectives = {"reverse_kl": ReverseKL(vocabulary=TOKENS)}
    scheme = catalogue.find("scheme", "on_policy")(
        padded_net(STUDENT, 0),
        Frozen(padded_net(TEACHER, 1)),
        objectives,
        sampling=Sampling(eos_token_id=9999, vocabulary=TOKENS),
    )
    with pytest.raises(
        ValueError, match=r"scheme\.sampling\.eos_token_id: .* from 0 to 57, got 9999"
    ):
        scheme.prepare(prompts())


def test_rows_in_two_tokenizers_are_refused() -> None:
    aligned = prompts() | {"teacher_input_ids": torch.zeros(6, 20, dtype=torch.int64)}
    with pytest.raises(ValueError, match=r"teacher\.tokenizer: OnPolicy generates text"):
        scheme_of("on_policy", TOKENS).prepare(aligned)
