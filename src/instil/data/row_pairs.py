"""Token rows with further rows of the same samples, such as those of a second task."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from instil.core import Batch
from instil.data.documents import Document
from instil.data.fitting import REFUSED
from instil.data.splits import Splits
from instil.data.token_packing import pruned, rows_of_parts
from instil.data.token_rows import TokenRows
from instil.data.tokenizers import Tokenizer


class RowPairs(TokenRows):
    """Token rows, and a further row of each sample under prefixed keys.

    Args:
        rows: first row of each sample.
        others: second row of each sample.
        prefix: beginning of the keys of the second rows, such as ``rationale_``.
    """

    def __init__(self, rows: TokenRows, others: TokenRows, prefix: str):
        # This object takes over the attributes of the first rows, which are complete.
        vars(self).update(vars(rows))
        self.others = others
        self.prefix = prefix

    def inputs(self, rows: Tensor) -> Batch:
        second = self.others.inputs(rows) | {"label": self.others.label[rows]}
        prefixed = {f"{self.prefix}{key}": value for key, value in second.items()}
        return super().inputs(rows) | prefixed

    def _take(self, rows: Tensor) -> None:
        self.tensors = TokenRows.inputs(self, rows)
        self.others = self.others.subset(rows)


def rows_of_pairs(
    parts: Sequence[Sequence[tuple[Document, Document]]],
    prefix: str,
    tokenizer: Tokenizer,
    length: int,
    limits: Sequence[int | None] = (None, None, None),
    prune: bool = False,
) -> Splits:
    """Divide pairs of documents into token rows.

    Args:
        parts: train, validation and test pairs; every document has a prompt.
        prefix: beginning of the keys of the second document of a pair.
        tokenizer: tokenizer of the rows.
        length: length of a row in tokens.
        limits: largest number of rows of each part; None for all.
        prune: whether to reduce the vocabulary to the tokens of the rows.

    Returns:
        Train, validation and test data, whose evaluation is that of the first documents.

    Raises:
        ValueError: for documents that are longer than a row.
    """
    sides = []
    for index in (0, 1):
        documents = [[pair[index] for pair in part] for part in parts]
        sides.append(rows_of_parts(documents, tokenizer, length, limits, REFUSED)[0])
    rows, tokens = pruned([*sides[0], *sides[1]], tokenizer, prune)
    size = len(tokens) or tokenizer.size
    data = [TokenRows(part, length, size, tokenizer, tokens) for part in rows]
    train, validation, test = (RowPairs(data[i], data[i + 3], prefix) for i in range(3))
    return Splits(train, validation, test, train.classes, train.kind)
