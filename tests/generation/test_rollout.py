"""Generated texts agree with the model's distributions, independent of the other rows."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from instil.core import Batch, Net, Outputs
from instil.functional.token_log_probs import token_log_probs
from instil.generation.reader import index_batch
from instil.generation.rollout import generate_text, generate_with
from instil.generation.sampling import sample_tokens
from instil.tasks.language import call
from instil.teachers.ensemble import Ensemble
from instil.teachers.frozen import Frozen
from tests.schemes.texts import END, LENGTH, VOCABULARY, net, prompts, timed


def llama() -> Net:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(3)
    config = transformers.LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=LENGTH,
        initializer_range=0.5,
        pad_token_id=None,
        bos_token_id=None,
        eos_token_id=END,
    )
    return Net(transformers.LlamaForCausalLM(config).eval(), call)


def gpt2() -> Net:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(3)
    sizes = {
        "vocab_size": VOCABULARY,
        "n_embd": 16,
        "n_layer": 2,
        "n_head": 2,
        "n_positions": LENGTH,
        "initializer_range": 0.5,
    }
    return Net(
        transformers.GPT2LMHeadModel(
            transformers.GPT2Config(**sizes, bos_token_id=None, eos_token_id=END)
        ).eval(),
        call,
    )


def without_cache() -> Net:
    def plainly(model: nn.Module, batch: Batch) -> Outputs:
        return {
            "logits": call(model, {key: batch[key] for key in ("input_ids", "attention_mask")})[
                "logits"
            ]
        }

    return Net(net(8, 2).model, plainly)


NETS = {
    "own": lambda: net(8, depth=2),
    "llama": llama,
    "gpt2": gpt2,
    "without a cache": without_cache,
}


@pytest.mark.parametrize("make", NETS.values(), ids=NETS)
def test_log_probabilities_are_those_of_training(make) -> None:  # type: ignore[no-untyped-def]
    model = make()
    for temperature in (1.0, 0.7):
        text = generate_text(model, timed(), END, temperature=temperature)
        logits = model(text)["logits"] / temperature
        expected = token_log_probs(logits, text["token"])
        assert text["valid"].sum() > 20
        assert torch.allclose(text["log_probability"], expected, atol=1e-5)


@pytest.mark.parametrize("make", [lambda: net(8, depth=2), llama], ids=["own", "llama"])
def test_the_cache_changes_nothing_and_is_used(make) -> None:  # type: ignore[no-untyped-def]
    network, lengths = make(), []

    def plainly(model: nn.Module, batch: Batch) -> Outputs:
        return {
            "logits": call(model, {key: batch[key] for key in ("input_ids", "attention_mask")})[
                "logits"
            ]
        }

    def noted(model: nn.Module, batch: Batch) -> Outputs:
        lengths.append(batch["input_ids"].shape[1])
        return call(model, batch)

    noting = Net(network.model, noted)
    generate_text(noting, timed(), END)  # the first call tests its cache
    lengths.clear()
    first, second = (
        generate_text(noting, timed(), END),
        generate_text(Net(network.model, plainly), timed(), END),
    )
    assert torch.equal(first["input_ids"], second["input_ids"])
    assert set(lengths[1:]) == {1}


def test_a_text_begins_after_its_prompt_and_ends_with_the_end_or_the_row() -> None:
    prompts = timed()
    text = generate_text(net(8), prompts, END)
    for row in range(len(prompts["valid"])):
        if not prompts["valid"][row].any():
            assert not text["valid"][row].any()
            continue
        model = int(prompts["valid"][row].int().argmax()) + 1
        assert torch.equal(text["input_ids"][row, :model], prompts["input_ids"][row, :model])
        tokens = text["token"][row][text["valid"][row]].tolist()
        assert END not in tokens[:-1]
        assert tokens[-1] == END or model + len(tokens) == LENGTH + 1
        places = range(model - 1, model - 1 + len(tokens))
        assert text["valid"][row].nonzero().flatten().tolist() == list(places)
        assert (
            text["input_ids"][row, model : model + len(tokens)].tolist() == tokens[: LENGTH - model]
        )
        assert int(text["attention_mask"][row].sum()) == min(model + len(tokens), LENGTH)
    assert (text["label"] == -100).all()
    assert len({int(row.sum()) for row in text["valid"]}) > 3


def test_it_does_not_depend_on_the_rows_beside_it_but_on_seed_step_and_index() -> None:
    model, prompts = net(8), timed()
    whole = generate_text(model, prompts, END)
    rows = torch.tensor([5, 2, 9])
    part = generate_text(
        model, {key: value[rows] if value.ndim else value for key, value in prompts.items()}, END
    )
    assert torch.equal(part["input_ids"], whole["input_ids"][rows])
    assert not torch.equal(
        generate_text(model, prompts | {"step": torch.tensor(1)}, END)["token"], whole["token"]
    )
    assert not torch.equal(
        generate_text(model, prompts | {"seed": torch.tensor(1)}, END)["token"], whole["token"]
    )


def test_prompts_are_at_least_so_long_and_texts_at_most() -> None:
    text = generate_text(net(8), timed(), None, min_prompt_tokens=5, max_new_tokens=3)
    counted = text["valid"].any(1)
    read = timed()["attention_mask"].sum(1).clamp_max(5)  # all tokens of a row of four are read
    assert read.unique().tolist() == [4, 5]
    assert torch.equal(text["valid"][counted].sum(1), torch.full_like(read, 3)[counted])
    assert torch.equal(text["valid"].int().argmax(1)[counted], read[counted] - 1)


def test_tokens_are_drawn_by_their_probability() -> None:
    logits = torch.tensor([0.5, 0.25, 0.15, 0.1]).log()
    numbers = (torch.arange(1000) + 0.5) / 1000
    token, log = sample_tokens(logits.expand(1000, -1), numbers)
    assert torch.bincount(token).tolist() == [500, 250, 150, 100]
    assert torch.allclose(log, logits[token])
    assert torch.bincount(
        sample_tokens(logits.expand(1000, -1), numbers, top_p=0.7)[0]
    ).tolist() == [
        667,
        333,
    ]
    assert sample_tokens(logits.expand(1000, -1), numbers, temperature=0)[0].unique().tolist() == [
        0
    ]
    assert torch.bincount(
        sample_tokens(logits.expand(1000, -1), numbers, temperature=0.5)[0]
    ).tolist() == [
        725,
        181,
        65,
        29,
    ]
    impossible = torch.tensor([[-torch.inf, 0.0, -torch.inf]]).expand(2, -1)
    assert sample_tokens(impossible, torch.tensor([0.0, 1 - 2**-24]))[0].tolist() == [1, 1]


def test_teachers_write_too() -> None:
    prompts = timed()
    alone = generate_text(net(8, 1), prompts, END)
    for teacher in (Frozen(net(8, 1)), Ensemble([net(8, 1), net(8, 1)])):
        text = generate_with(
            prompts, [teacher], lambda logits, numbers: sample_tokens(logits[0], numbers[:, 0]), END
        )
        assert torch.equal(text["input_ids"], alone["input_ids"])


def test_a_batch_without_prompts_or_of_nothing() -> None:
    packed = timed() | {
        "valid": torch.ones(16, LENGTH, dtype=torch.bool),
        "attention_mask": torch.ones(16, LENGTH, dtype=torch.int64),
    }
    assert generate_text(net(8), packed)["valid"].all()
    nothing = generate_text(net(8), timed() | {"valid": torch.zeros(16, LENGTH, dtype=torch.bool)})
    assert not nothing["valid"].any()
    assert prompts()["valid"].any()


def test_every_one_of_several_ends_stops_a_text() -> None:
    batch = index_batch(prompts() | timed(), torch.arange(4))
    script = torch.tensor([[7, 5, 7, 7], [5, 6, 7, 7], [7, 7, 7, 6], [6, 7, 7, 7]])
    turn = iter(range(4))

    def choose(logits: object, numbers: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        token = script[:, next(turn)]
        return token, torch.zeros(len(token))

    def silent(batch: Batch) -> Outputs:
        return {"logits": torch.zeros(*batch["input_ids"].shape, VOCABULARY)}

    text = generate_with(batch, [silent], choose, [5, 6], max_new_tokens=4)
    assert (text["token"] >= 0).sum(1).tolist() == [2, 1, 4, 1]
