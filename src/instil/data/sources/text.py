"""Source ``text``: token rows of text documents from files, folders or the standard library."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from typing_extensions import Doc

from instil.data.aligned import aligned
from instil.data.documents import documents
from instil.data.fitting import REFUSED, TooLong, TooLongPolicy
from instil.data.rationales import KEYS, RationaleOption, RationaleUse, two_tasks, with_rationales
from instil.data.special_tokens import BosOption, EndOption
from instil.data.splits import Splits
from instil.data.token_packing import Context, Count, of_documents
from instil.data.token_verifier import set_verifier
from instil.data.tokenizers import Tokenizer, TokenizerOption
from instil.data.tokenizers import load_tokenizer as build_tokenizer
from instil.data.verifiers import VerifierOption

TextPath = Annotated[
    str,
    Doc(
        "stdlib (the source code of Python's standard library), a folder of texts, or a .jsonl file"
    ),
]
Rows = Annotated[
    Count | None,
    Doc(
        "largest number of training rows, spread evenly over the texts, or the first ones of "
        "prompts; null: all"
    ),
]
HeldOut = Annotated[
    Count | None, Doc("largest number of validation rows, and of test rows; null: all")
]
ContextPosition = Annotated[
    Context,
    Doc(
        "position of a prompt's context; separate: in keys of its own, read: in front of the prompt"
    ),
]
End = Annotated[
    EndOption | None,
    Doc(
        "token that is appended to texts, or a list of tokens that each end a text; null: "
        "those of the tokenizer's folder"
    ),
]
Bos = Annotated[
    BosOption,
    Doc(
        "whether texts begin with the tokenizer's first token, which is input only; auto: as "
        "the tokenizer does"
    ),
]
TooLongRows = Annotated[
    TooLongPolicy,
    Doc(
        "prompt and answer that are longer than a row: error; drop, leave them out; truncate, "
        "remove the beginning of the prompt"
    ),
]
TeacherTokenizer = Annotated[
    str | None, Doc("tokenizer of a teacher that reads the same texts; null: the same one")
]
TeacherLength = Annotated[int | None, Doc("length of the teacher's rows in tokens; null: length")]
TeacherEnd = Annotated[EndOption | None, Doc("end tokens of the teacher's tokenizer, as for end")]


def text(
    path: TextPath = "stdlib",
    tokenizer: TokenizerOption = "bytes",
    length: Annotated[int, Doc("length of a row in tokens; >= 2")] = 128,
    rows: Rows = None,
    held_out: HeldOut = None,
    prune: Annotated[
        bool, Doc("reduce the vocabulary to the tokens of these rows and their components")
    ] = False,
    cut: Annotated[bool, Doc("cut the end of an answer that does not fit into a row")] = False,
    context: ContextPosition = "separate",
    domain: Annotated[str | None, Doc("only rows of this domain; null: all")] = None,
    end: End = None,
    bos: Bos = "auto",
    too_long: TooLongRows = "error",
    teacher_tokenizer: TeacherTokenizer = None,
    teacher_length: TeacherLength = None,
    teacher_end: TeacherEnd = None,
    rationale: RationaleOption = "ignore",
    verifier: VerifierOption = None,
    base: Path = Path(),
) -> Splits:
    """Rows of tokens of text documents, for language models.

    The documents are divided into train, validation and test; see ``documents`` for the formats.
    Plain texts follow one another, each closed by the end token, and are cut into rows without
    gaps, so that every token is a target once. A document with a prompt has a padded row of its
    own. Only its answer is learned, with the end token unless the answer was cut.

    A row holds texts of one domain only. If there are several domains, ``domain`` in a batch is
    the index of each row's domain, in alphabetical order.

    With ``teacher_tokenizer`` the same texts also come in the teacher's tokens, cut where both
    tokenizers have a token boundary (see ``AlignedRows``). Such rows have no context and domain.

    With ``rationale: task`` the rationales are rows of a second task (see ``two_tasks``), and with
    ``rationale: counterfactual`` the wrong ones. With ``rationale: preference`` the wrong answers
    are the rejected texts of pairs. All prompts and answers must fit into a row.

    Args:
        base: folder that relative paths start from.

    Returns:
        Train, validation and test data.

    Raises:
        ValueError: for texts that are shorter than one row, a prompt and answer that do not fit,
            a domain without rows, and options that exclude each other.
    """
    if length < 2:
        raise ValueError(f"length: {length} is too small. Expected at least 2 tokens in a row")
    parts = documents(path, base)
    if rationale == "answer":
        parts = with_rationales(parts, "\n")
    limits = (rows, held_out, held_out)
    handling = TooLong(too_long, cut)
    texts = [document.text for document in parts[0]]
    student_tokenizer = build_tokenizer(tokenizer, texts, base, end, bos)
    if rationale in KEYS:
        _check_two_tasks(rationale, teacher_tokenizer, domain, handling)
        splits = two_tasks(parts, student_tokenizer, length, rationale, limits, prune)
    elif teacher_tokenizer is not None:
        other_tokenizer = _of_teacher(teacher_tokenizer, texts, base, teacher_end, bos)
        both = (student_tokenizer, other_tokenizer)
        lengths = (length, teacher_length or length)
        splits = aligned(parts, both, lengths, limits, prune, handling)
    else:
        splits = of_documents(
            parts, student_tokenizer, length, limits, prune, handling, context, domain
        )
    return set_verifier(splits, verifier)


def _of_teacher(
    name: str, texts: Sequence[str], base: Path, end: EndOption | None, bos: BosOption
) -> Tokenizer:
    """Tokenizer of a teacher; errors name its options."""
    try:
        return build_tokenizer(name, texts, base, end, bos)
    except ValueError as error:
        is_option = str(error).startswith(("tokenizer:", "end:"))
        raise ValueError(f"teacher_{error}" if is_option else str(error)) from error


def _check_two_tasks(
    use: RationaleUse, teacher_tokenizer: str | None, domain: str | None, handling: TooLong
) -> None:
    """Raise ValueError for options that rows of two tasks do not support."""
    if teacher_tokenizer is not None or domain is not None or handling != REFUSED:
        raise ValueError(
            f"rationale: {use} supports no teacher_tokenizer, domain, too_long and cut. Leave them "
            "out, or set rationale to answer"
        )
