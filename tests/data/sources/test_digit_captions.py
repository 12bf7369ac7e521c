"""Source ``digit_captions``: captions, prompts, and images with the caption of another one."""

from __future__ import annotations

import pytest
import torch

from instil.data.sources.digit_captions import caption, digit_captions, encode_texts


def test_captions_name_the_digit() -> None:
    data = digit_captions().test
    batch = data.__getitems__(range(20))
    for ids, label in zip(batch["input_ids"], batch["label"].tolist(), strict=True):
        assert data.classes[label] in caption(ids)
    texts = [caption(ids) for ids in batch["input_ids"]]
    assert torch.equal(encode_texts(texts)["input_ids"], batch["input_ids"])
    assert torch.equal(encode_texts(texts)["attention_mask"], batch["attention_mask"])


def test_few_pairs_keep_their_caption() -> None:
    data = digit_captions(num_pairs=100)
    whole = digit_captions().train.__getitems__(range(1000))
    few = data.train.__getitems__(range(1000))
    is_pair, before, after = few["is_pair"], whole["input_ids"], few["input_ids"]
    assert int(is_pair.sum()) == 100
    assert torch.equal(before[is_pair], after[is_pair])
    # Some captions of two images are equal.
    is_same = (before[~is_pair] == after[~is_pair]).all(1)
    assert is_same.float().mean() < 0.05
    assert sorted(map(tuple, before.tolist())) == sorted(map(tuple, after.tolist()))
    assert torch.equal(whole["image"], few["image"])
    assert "is_pair" not in data.test.__getitems__([0])
    with pytest.raises(ValueError, match=r"num_pairs: too many\. Expected at most 1000"):
        digit_captions(num_pairs=1001)


def test_prompts_have_words_of_the_captions() -> None:
    with pytest.raises(ValueError, match=r"no word 'rde'\. Did you mean red"):
        encode_texts(["a rde zero"])
    with pytest.raises(ValueError, match=r"too long\. Expected at most 5 words"):
        encode_texts(["a a a a a zero"])
