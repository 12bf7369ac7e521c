"""Conversations: forms of rows, learned tokens, truncation, packing, and wrong input."""

from __future__ import annotations

import gzip
import json
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch

from instil.data.ragged_rows import RaggedRows
from instil.data.samplers.length_buckets import length_buckets
from instil.data.samplers.shuffled import shuffled
from instil.data.samples import Samples
from instil.data.sources.chat import chat
from tests.data.chat_files import CHATML, conversations, tokenizer_folder, turns, write_jsonl

MARKED = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['role'] == 'assistant' %}{% generation %}{{ message['content'] }}<|im_end|>"
    "{% endgeneration %}{% else %}{{ message['content'] }}<|im_end|>{% endif %}"
    "{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
FORGETFUL = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['role'] == 'assistant' and loop.last %}(thought){% endif %}"
    "{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""Template that removes the thought of earlier answers, as those of reasoning models do."""


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tokenizer_folder(tmp_path_factory.mktemp("tokenizer"))


def learned(samples: Samples, row: int = 0) -> str:
    """Text of the learned tokens of a row, with special tokens."""
    assert isinstance(samples, RaggedRows)
    batch = samples.__getitems__([row])
    inner: Any = samples.tokenizer
    return str(inner.inner.decode(batch["label"][batch["valid"]].tolist(), False))


def train(
    path: Path, rows: list[Any], tokenizer: str, teacher: str | None = None, **options: Any
) -> RaggedRows:
    """Training rows; the held-out row is a plain text of its own."""
    row = {"text": "the lazy dog", "teacher_id": teacher}
    held_out = write_jsonl(path / "held_out.jsonl", [row])
    files = {"train": write_jsonl(path / "train.jsonl", rows)}
    data = chat(files | {"validation": held_out, "test": held_out}, tokenizer, **options).train
    assert isinstance(data, RaggedRows)
    return data


DIALOG = turns("the fox?", "It jumps.", "and the dog?", "It is lazy.", system="quick")
ANSWERS = "It jumps.<|im_end|>It is lazy.<|im_end|>"


@pytest.mark.parametrize("template", [CHATML, MARKED])
def test_answers_are_learned_with_their_end(tmp_path: Path, template: str) -> None:
    folder = tokenizer_folder(tmp_path / "tokenizer", template)
    rows = [{"messages": DIALOG}]
    assert learned(train(tmp_path, rows, folder)) == ANSWERS
    assert learned(train(tmp_path, rows, folder, loss_on="completion")) == "It is lazy.<|im_end|>"
    everything = learned(train(tmp_path, rows, folder, loss_on="all"))
    assert everything.startswith("system\nquick<|im_end|>\n<|im_start|>user\nthe fox?")


@pytest.mark.parametrize("template", [CHATML, MARKED])
@pytest.mark.parametrize("key", ["loss", "weight", "train"])
def test_answers_that_a_message_excludes(tmp_path: Path, template: str, key: str) -> None:
    folder = tokenizer_folder(tmp_path / "tokenizer", template)
    messages = [dict(turn) for turn in DIALOG]
    messages[2] |= {key: 0}
    messages[4] |= {key: True}
    assert learned(train(tmp_path, [{"messages": messages}], folder)) == "It is lazy.<|im_end|>"


@pytest.mark.parametrize("value", ["false", 0.5, [0]])
def test_flags_of_a_message_that_are_neither_true_nor_false(
    tmp_path: Path, tokenizer: str, value: object
) -> None:
    messages = [*DIALOG[:2], {**DIALOG[2], "loss": value}, *DIALOG[3:]]
    with pytest.raises(ValueError, match=r"line 1: message 2: loss is .*Expected true or false"):
        train(tmp_path, [{"messages": messages}], tokenizer)


def test_marks_that_are_no_answers(tmp_path: Path, tokenizer: str) -> None:
    template = tmp_path / "two.jinja"
    template.write_text(MARKED + "{% generation %}the{% endgeneration %}")
    messages = [*DIALOG[:2], {**DIALOG[2], "loss": False}, *DIALOG[3:]]
    with pytest.raises(ValueError, match=r"marks 3 parts of 2 answers"):
        train(tmp_path, [{"messages": messages}], tokenizer, chat_template=str(template))


def test_forms_of_rows(tmp_path: Path, tokenizer: str) -> None:
    sharegpt = [{"from": "human", "value": "the fox?"}, {"from": "gpt", "value": "It jumps."}]
    parts = [{"role": "user", "content": [{"type": "text", "text": "the fox?"}]}, DIALOG[2]]
    rows = [
        {"messages": DIALOG},
        {"conversations": sharegpt},
        {"messages": json.dumps(DIALOG)},
        {"messages": parts},
        {"prompt": DIALOG[:4], "completion": DIALOG[4:]},
        {"prompt": "the fox?", "completion": " It jumps."},
        {"prompt": "the fox?", "completion": " It jumps.", "finish_reason": "length"},
        {"text": "the lazy dog"},
        "",
        {"text": "the lazy dog", "messages": None, "prompt": None},
        {"conversations": sharegpt, "messages": None},
        {"messages": DIALOG, "finish_reason": "length"},
    ]
    data = train(tmp_path, rows, tokenizer)
    assert [learned(data, row) for row in range(len(data))] == [
        ANSWERS,
        "It jumps.<|im_end|>",
        ANSWERS,
        "It jumps.<|im_end|>",
        "It is lazy.<|im_end|>",
        " It jumps.<|im_end|>",
        " It jumps.",
        " lazy dog<|im_end|>",
        " lazy dog<|im_end|>",
        "It jumps.<|im_end|>",
        "It jumps.<|im_end|>It is lazy.",
    ], "the first token of a text has no earlier one"


@pytest.mark.parametrize("kind", ["jsonl.gz", "json", "parquet", "datasets", "splits"])
def test_files(tmp_path: Path, tokenizer: str, kind: str) -> None:
    rows = conversations(20)
    expected = chat(write_jsonl(tmp_path / "rows.jsonl", rows), tokenizer, length=128)
    path = tmp_path / f"other.{kind}"
    files: Any = str(path)
    if kind == "jsonl.gz":
        path.write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode()))
    elif kind == "json":
        path.write_text(json.dumps(rows))
    else:
        datasets = pytest.importorskip("datasets")
        data = datasets.Dataset.from_list(rows)
        if kind == "parquet":
            data.to_parquet(str(path))
        elif kind == "datasets":
            data.save_to_disk(str(path))
        else:
            parts = {"train": data, "val": data.select(range(3)), "test": data.select(range(4))}
            datasets.DatasetDict(parts).save_to_disk(str(path))
            loaded = chat(files, tokenizer, length=128)
            assert [len(loaded.train), len(loaded.validation), len(loaded.test)] == [20, 3, 4]
            return
    loaded = chat(files, tokenizer, length=128)
    assert len(loaded.train) == 16
    for row in range(16):
        same = [part.train[row]["input_ids"] for part in (loaded, expected)]
        assert torch.equal(*same)


def test_templates_of_the_recipe_and_tools(tmp_path: Path, tokenizer: str) -> None:
    template = tmp_path / "mine.jinja"
    template.write_text("{% if tools %}{{ tools[0]['name'] }}: {% endif %}" + MARKED)
    calls = [*turns("the fox?"), {"role": "assistant", "content": None, "tool_calls": [1]}]
    rows = [
        {"messages": [*calls, {"role": "tool", "content": "over"}, *turns("", "It jumps.")[1:]]},
        {"messages": turns("the fox?", "It jumps."), "tools": json.dumps([{"name": "jump"}])},
    ]
    data = train(tmp_path, rows, tokenizer, chat_template=str(template))
    assert learned(data, 0) == "<|im_end|>It jumps.<|im_end|>"
    assert data.text_of(data[1]["input_ids"].tolist()).startswith("jump: user")
    exported = data.tokenizer.files.chat_template  # type: ignore[attr-defined]
    assert "{% generation" not in exported
    plain = train(tmp_path, rows, tokenizer_folder(tmp_path / "plain", exported))
    assert torch.equal(plain[1]["input_ids"], data[1]["input_ids"])
    named = train(tmp_path, rows[:1], tokenizer, chat_template="chatml")
    assert learned(named, 0) == "<|im_end|>It jumps.<|im_end|>"


def test_tools_that_the_template_does_not_write_are_counted(tmp_path: Path, tokenizer: str) -> None:
    call = {"type": "function", "function": {"name": "leap", "arguments": {"far": 1}}}
    calling = {"role": "assistant", "content": None, "tool_calls": [call]}
    rows = [
        {"messages": [*turns("the fox?"), calling]},
        {"messages": DIALOG, "tools": [{"type": "function", "function": {"name": "leap"}}]},
        {"messages": DIALOG},
    ]
    data = train(tmp_path, rows, tokenizer)
    assert data.notes == (
        "train files: 2 of 3 rows have tools or calls of tools that the chat template does not "
        "write (first: train.jsonl, line 1)",
    )
    template = tmp_path / "named.jinja"
    template.write_text("{{ tools }}{{ messages[-1].tool_calls }}" + MARKED)
    assert not train(tmp_path, rows, tokenizer, chat_template=str(template)).notes


def test_the_chosen_answer_of_a_preference_pair_is_learned(tmp_path: Path, tokenizer: str) -> None:
    rows: list[Any] = [
        {"prompt": "the ", "chosen": "fox", "rejected": "dog"},
        {"prompt": DIALOG[:-1], "chosen": DIALOG[-1:], "rejected": turns("x", "dog")[1:]},
        {"chosen": DIALOG, "rejected": DIALOG[:-1] + turns("x", "dog")[1:]},
    ]
    data = train(tmp_path, rows, tokenizer)
    texts = [learned(data, row) for row in range(3)]
    assert texts == ["fox<|im_end|>", "It is lazy.<|im_end|>", ANSWERS]
    with pytest.raises(ValueError, match="'prompt' is a text and 'chosen' a list"):
        train(tmp_path, [{"prompt": "the", "chosen": DIALOG[-1:]}], tokenizer)


def test_a_template_that_forgets_needs_marks(tmp_path: Path) -> None:
    folder = tokenizer_folder(tmp_path / "tokenizer", FORGETFUL)
    with pytest.raises(ValueError, match=r"train.jsonl, line 1: the answer in message 2 cannot.*"):
        train(tmp_path, [{"messages": DIALOG}], folder)
    last = train(tmp_path, [{"messages": DIALOG}], folder, loss_on="completion")
    assert learned(last) == "(thought)It is lazy.<|im_end|>"


def test_a_prompt_whose_last_token_reaches_into_the_answer(tmp_path: Path) -> None:
    joined = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}<|im_end|>{% endfor %}"
    joined += "{% if add_generation_prompt %}assistant: {% endif %}"
    folder = tokenizer_folder(tmp_path / "tokenizer", joined)
    with pytest.raises(ValueError, match=r"tokens of a prompt are not the first tokens"):
        train(tmp_path, [{"messages": turns("the", "quick")}], folder)


WRONG = [
    ({"messages": [{"role": "asistant", "content": "x"}]}, "line 1: message 0 has the unknown ro"),
    ({"messages": [{"content": "x"}]}, "has no role. Expected one of system"),
    ({"messages": [{"role": "user", "content": 5}]}, "content is 5. Expected a text"),
    ({"messages": [{"role": "user", "content": [{"type": "audio"}]}]}, "a part of type 'audio'"),
    ({"messages": 3}, "'messages' is 3. Expected a list of messages"),
    ({"mesages": []}, "no column to learn, only mesages.* Did you mean messages"),
    ({"prompt": "a"}, "'prompt' is 'a' and no 'completion'. Expected"),
    ({"prompt": "a", "completion": DIALOG[:1]}, "'prompt' is a text and 'completion' a list"),
    ({"text": None}, "'text' is null. Expected"),
    ({"text": 5}, "'text' is 5. Expected a text"),
    ({"text": "the", "teacher_id": 1.5}, "teacher_id is 1.5"),
    ({"messages": DIALOG, "tools": "{"}, "'tools' is not JSON"),
    ("{", "train.jsonl, line 1: the line is not JSON"),
    ("[]", "line 1: a list. Expected an object"),
]


@pytest.mark.parametrize(("row", "message"), WRONG, ids=lambda value: str(value)[:20])
def test_wrong_rows(tmp_path: Path, tokenizer: str, row: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        train(tmp_path, [row], tokenizer)


def test_rows_that_are_left_out_are_counted(tmp_path: Path, tokenizer: str) -> None:
    rows = [
        {"messages": DIALOG},
        {"messages": turns("the fox?", " ")},
        {"messages": turns("the fox?")},
        {"prompt": "the", "completion": ""},
    ]
    data = train(tmp_path, rows, tokenizer)
    assert len(data) == 1
    assert data.notes == (
        "train files: 3 of 4 rows have an empty answer, or none, and are left out "
        "(first: train.jsonl, line 2)",
    )
    with pytest.raises(ValueError, match=r"files.train: there is no text to learn: .*empty answer"):
        train(tmp_path, rows[1:], tokenizer)
    endless = tmp_path / "endless.jinja"
    endless.write_text(CHATML.replace("<|im_end|>", "."))
    data = train(tmp_path, rows[:1], tokenizer, chat_template=str(endless))
    assert "1 of 1 rows have an answer without an end token" in data.notes[0]


def test_a_tokenizer_without_template(tmp_path: Path) -> None:
    folder = tokenizer_folder(tmp_path / "tokenizer", None)
    with pytest.raises(ValueError, match=r"no chat template. Set chat_template to a file, or to"):
        train(tmp_path, [{"messages": DIALOG}], folder)
    assert learned(train(tmp_path, [{"messages": DIALOG}], folder, chat_template="chatml"))
    with pytest.raises(ValueError, match=r"chat_template: no 'missing.jinja'"):
        train(tmp_path, [{"messages": DIALOG}], folder, chat_template="missing.jinja")
    with pytest.raises(ValueError, match=r"no file 'chatlm'. Did you mean chatml\?"):
        train(tmp_path, [{"messages": DIALOG}], folder, chat_template="chatlm")


def test_a_conversation_that_begins_with_an_answer(tmp_path: Path) -> None:
    """Templates of Llama write the first token with the first message, those of Gemma read it."""
    messages = [{"role": "assistant", "content": "quick"}, *turns("fox?", "lazy")]
    begun = CHATML.replace("%}<|im_start|>{{", "%}{% if loop.first %}B{% endif %}<|im_start|>{{", 1)
    for name, template in (("llama", begun), ("gemma", "{{ messages[0]['role'] }}" + CHATML)):
        folder = tokenizer_folder(tmp_path / name, template)
        with pytest.raises(ValueError, match=r"line 1: the conversation begins with an answer"):
            train(tmp_path, [{"messages": messages}], folder)
        rows = [{"messages": [messages[0] | {"loss": False}, *messages[1:]]}]
        assert learned(train(tmp_path, rows, folder)) == "lazy<|im_end|>"


def test_a_last_answer_that_cannot_be_located(tmp_path: Path, tokenizer: str) -> None:
    thinking = tmp_path / "thinking.jinja"
    thinking.write_text(CHATML.replace("assistant\n{% endif %}", "assistant\n<think>{% endif %}"))
    rows = [{"messages": DIALOG}]
    for loss_on, advice in (("assistant", "file, or loss_on=completion"), ("completion", "file$")):
        with pytest.raises(ValueError, match=f"cannot be located.*Set chat_template .*{advice}"):
            train(tmp_path, rows, tokenizer, chat_template=str(thinking), loss_on=loss_on)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{% for m in messages %}\n{{ m['content']|tirm }}{% endfor %}", ", line 2: .* 'tirm'"),
        ("{% for m in messages %}{{ m['content'] }}", ", line 1: .*'endfor'"),
        ("{% for m in messages %}{{ m['role'] }}{% endfor %}", "leaves out the contents"),
        ("{% for m in mesages %}{{ m['content'] }}{% endfor %}", "leaves out the contents"),
        ("\udcff", "cannot be read as text"),
    ],
)
def test_broken_templates(tmp_path: Path, tokenizer: str, template: str, message: str) -> None:
    file = tmp_path / "broken.jinja"
    file.write_text(template, errors="surrogateescape")
    with pytest.raises(ValueError, match=f"^chat_template: .*broken.jinja.*{message}"):
        train(tmp_path, [{"messages": DIALOG}], tokenizer, chat_template=str(file))


def test_a_broken_template_of_the_tokenizer(tmp_path: Path) -> None:
    folder = tokenizer_folder(tmp_path / "tokenizer", "{{ messages")
    with pytest.raises(ValueError, match=r"^tokenizer: the chat template, line 1: "):
        train(tmp_path, [{"messages": DIALOG}], folder)


def test_a_byte_order_mark(tmp_path: Path, tokenizer: str) -> None:
    data = train(tmp_path, ["\ufeff" + json.dumps({"messages": DIALOG})], tokenizer)
    assert learned(data) == ANSWERS


def test_files_that_cannot_be_read(tmp_path: Path, tokenizer: str) -> None:
    (tmp_path / "a.txt").write_text("x")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "rows.jsonl").write_text("{}")
    (tmp_path / "dict.json").write_text("{}")
    (tmp_path / "bad.parquet").write_text("x")
    (tmp_path / "bad.jsonl.gz").write_text("x")
    for name, message in {
        "folder": r"is a plain folder. Expected .*folder/\*.jsonl",
        "dict.json": "holds a JSON dict. Expected a list",
        "bad.parquet": "cannot be read as Parquet",
        "bad.jsonl.gz": "cannot be read",
        "none.jsonl": "no 'none.jsonl' in",
    }.items():
        with pytest.raises(ValueError, match=message):
            chat(name, tokenizer, base=tmp_path)
    with pytest.raises(ValueError, match=r"files.tran: there is no such split. Did you mean train"):
        chat({"tran": "dict.json"}, tokenizer, base=tmp_path)
    with pytest.raises(ValueError, match=r"a.txt has an unknown ending|neither a file"):
        chat({"train": "*.txt"}, tokenizer, base=tmp_path)


def test_truncation(tmp_path: Path, tokenizer: str) -> None:
    long = {"prompt": "the " * 6, "completion": " ".join(map(str, range(20)))}
    late = {"prompt": "the " * 30, "completion": "It jumps."}
    short = {"text": "the lazy dog"}
    rows = [long, late, short]
    with pytest.raises(ValueError, match=r"length: 2 of 3 texts are longer .* the longest has \d+"):
        train(tmp_path, rows, tokenizer, length=16)
    dropped = train(tmp_path, rows, tokenizer, length=16, truncation="drop")
    assert len(dropped) == 1
    assert dropped.notes == (
        "train texts: 2 of 3 texts are longer than 16 tokens and are left out",
    )
    right = train(tmp_path, rows, tokenizer, length=16, truncation="right")
    assert len(right) == 2
    assert learned(right).startswith("0 1")
    assert "1 rows have no learned token after that" in right.notes[1]
    left = train(tmp_path, rows, tokenizer, length=16, truncation="left")
    assert [learned(left, row)[-12:] for row in (0, 1)] == ["19<|im_end|>"[-12:], "s.<|im_end|>"]
    split = train(tmp_path, rows, tokenizer, length=16, truncation="split")
    whole = train(tmp_path, rows, tokenizer, length=256)
    texts = [learned(split, row) for row in range(len(split))]
    assert "".join(texts) == "".join(learned(whole, row) for row in range(3))
    assert all(int(split[row]["attention_mask"].sum()) <= 16 for row in range(len(split)))


def test_a_batch_has_the_width_of_its_longest_row(tmp_path: Path, tokenizer: str) -> None:
    data = train(tmp_path, conversations(10), tokenizer, length=512)
    for rows in ([0], [0, 4], [1, 2, 3]):
        batch = data.__getitems__(rows)
        longest = int(data.lengths[rows].max())
        assert batch["input_ids"].shape[1] == -(-longest // 8) * 8
        assert torch.equal(batch["attention_mask"].sum(1), data.lengths[rows])
    data.fix_width()
    assert data[0]["input_ids"].shape == data[4]["input_ids"].shape


def test_length_buckets_have_the_rows_of_shuffled_batches(tmp_path: Path, tokenizer: str) -> None:
    data = train(tmp_path, conversations(50), tokenizer, length=512)

    def generator() -> torch.Generator:
        return torch.Generator().manual_seed(3)

    rows, _ = length_buckets(data, 4, generator())
    plain, _ = shuffled(data, 4, generator())
    assert torch.equal(rows.flatten().sort().values, plain.flatten().sort().values)
    assert torch.equal(rows, length_buckets(data, 4, generator())[0])

    def padding(batches: torch.Tensor) -> int:
        lengths = data.lengths[batches]
        return int((lengths.max(1, keepdim=True).values - lengths).sum())

    assert padding(rows) < padding(plain) / 4
    with pytest.raises(ValueError, match=r"length_buckets needs .*s of different lengths"):
        length_buckets(Samples(torch.zeros(4, dtype=torch.int64), ["a"]), 2, generator())


def test_domains_and_teachers_are_keys_of_a_batch(tmp_path: Path, tokenizer: str) -> None:
    names = ("law", "art")
    rows = [
        {"text": "the lazy dog", "domain": names[index % 2], "teacher_id": f"t{index % 3}"}
        for index in range(12)
    ]
    data = train(tmp_path, rows, tokenizer, "t0")
    batch = data.__getitems__(range(12))
    # The held-out texts have no domain, whose empty name comes first.
    assert batch["domain"].tolist() == [2, 1] * 6
    assert batch["teacher_id"].tolist() == [0, 1, 2] * 4
    packed = data.packed()
    for row in range(len(packed)):
        assert len({(index % 2, index % 3) for index in packed.groups[row]}) == 1
    del rows[3]["teacher_id"]
    with pytest.raises(ValueError, match=r"teacher_id: .* rows have none"):
        train(tmp_path, rows, tokenizer, "t0")
    rows[3]["teacher_id"] = 1
    with pytest.raises(ValueError, match=r"some rows have an index and others a name"):
        train(tmp_path, rows, tokenizer, "t0")


def test_packed_rows_hold_every_text_once(tmp_path: Path, tokenizer: str) -> None:
    data = train(tmp_path, conversations(30), tokenizer, length=256)
    packed = data.packed()
    assert len(packed) < len(data) / 2
    assert sorted(chain.from_iterable(packed.groups)) == list(range(30))
    assert packed.lengths.sum() == data.lengths.sum()
    assert (packed.lengths <= 256).all()
    part = data.subset([20, 3, 11, 7]).packed()
    assert sorted(chain.from_iterable(part.groups)) == [3, 7, 11, 20]
    assert int(part.__getitems__(range(len(part)))["segment"].max()) > 1
    batch = packed.__getitems__(range(len(packed)))
    begins = (batch["position_ids"] == 0) & (batch["segment"] > 0)
    assert begins.sum() == 30
    counts = [int(part["valid"].sum()) for part in (batch, data.__getitems__(range(30)))]
    assert counts[0] == counts[1]


def test_a_pruned_vocabulary_keeps_the_texts(tmp_path: Path, tokenizer: str) -> None:
    rows = conversations(6)
    whole = train(tmp_path, rows, tokenizer, length=128)
    pruned = train(tmp_path, rows, tokenizer, length=128, prune=True)
    assert pruned.vocabulary < whole.vocabulary
    for row in range(6):
        texts = [part.text_of(part[row]["input_ids"].tolist()) for part in (whole, pruned)]
        assert texts[0] == texts[1]


def test_labels_can_be_hidden(tmp_path: Path, tokenizer: str) -> None:
    data = train(tmp_path, conversations(4), tokenizer).keep_labels(torch.tensor([1]))
    batch = data.__getitems__(range(4))
    assert (batch["label"] >= 0).any(1).tolist() == [False, True, False, False]
    assert batch["valid"].any(1).all()


def test_answers_to_one_prompt_are_in_one_split(tmp_path: Path, tokenizer: str) -> None:
    words = ("quick", "brown", "fox", "jumps", "over", "the", "lazy", "dog")
    rows = [{"prompt": f"{a} {b} ", "completion": c} for a in words for b in words for c in words]
    data = chat(write_jsonl(tmp_path / "a.jsonl", rows), tokenizer)
    parts = [data.train, data.validation, data.test]
    prompts = []
    for part in parts:
        assert isinstance(part, RaggedRows)
        prompts.append({int(text) // len(words) for text in part.fit.text})
    assert sum(map(len, prompts)) == len(set().union(*prompts)) == 64
