"""Tokenizers of pairs: one vocabulary, unknown symbols, subwords."""

from __future__ import annotations

import pytest

from instil.data.pair_tokenizers import UNKNOWN, pair_tokenizer
from instil.data.sequence_pairs import text_pairs

PAIRS = [("ab", "X YY"), ("b c", "YY")]


def test_characters_and_words_share_one_vocabulary() -> None:
    tokenizer = pair_tokenizer("characters", "words", PAIRS)
    assert tokenizer.size == 3 + len({"a", "b", " ", "c", "X", "YY"})
    assert tokenizer.text_of(tokenizer.target_ids("YY X")) == "YY X"
    assert tokenizer.source_ids("az")[1] == UNKNOWN
    assert not tokenizer.is_text
    assert pair_tokenizer("characters", None, PAIRS).is_text


@pytest.mark.parametrize("name", ["bytes", "bpe:300"])
def test_subwords_have_one_tokenizer_for_both(name: str) -> None:
    tokenizer = pair_tokenizer(name, None, PAIRS * 20)
    assert tokenizer.text_of(tokenizer.target_ids("X YY")) == "X YY"
    assert tokenizer.start == tokenizer.end
    with pytest.raises(ValueError, match="target_tokenizer: words cannot be combined"):
        pair_tokenizer(name, "words", PAIRS)


def test_samples_end_with_the_end_token_and_may_lack_a_label() -> None:
    tokenizer = pair_tokenizer("characters", "words", PAIRS)
    data = text_pairs([*PAIRS, ("a", None)], tokenizer)
    batch = data.__getitems__([0, 1, 2])
    assert batch["encoder_attention_mask"].sum(1).tolist() == [3, 4, 2]
    assert batch["label_length"].tolist() == [3, 2, 0]
    assert batch["label"][0, 2] == batch["input_ids"][0, 2] == tokenizer.end
    assert batch["valid"].sum(1).tolist() == [3, 2, 1]
    assert data.has_label.tolist() == [True, True, False]
    assert data.facts["inputs"] == "input_ids"
    hidden = data.keep_labels([0])
    assert hidden.__getitems__([1])["valid"].sum() == 1
    with pytest.raises(ValueError, match=r"token ids \(N, L\) below 9"):
        data.relabel(data.label + 9)
