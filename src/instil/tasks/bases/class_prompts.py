"""Texts that describe the classes, for zero-shot evaluation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import chain, product
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor
from typing_extensions import Doc

from instil.cards import suggestion
from instil.core import Batch, Outputs, batch_size, to_float32

TextEncoder = Callable[[Sequence[str]], Batch]
"""Function from N texts to the text inputs of a batch of N samples."""

PLACE = "{}"
"""Part of a template that the name of a class replaces."""

TemplatesOption = Annotated[
    list[str] | None,
    Doc(
        "texts with one `{}` for the name of a class, such as `a photo of a {}`; the mean of the "
        "embeddings of these prompts is that of the class. null: the mean of the embeddings of "
        "the evaluated texts of the class"
    ),
]
PromptNamesOption = Annotated[
    dict[str, str | list[str]] | None,
    Doc("name of each class in the prompts, or a list of names; null: class names of the data"),
]

CHUNK = 256
"""Number of prompts that are embedded at the same time."""


class ClassPrompts:
    """Prompts of the classes, as text inputs of a network.

    The embedding of a class is the mean over its prompts, each scaled to length 1 before and the
    mean after (Radford et al. 2021, section 3.1.4).

    Args:
        classes: class names of the data.
        templates: texts with one ``{}`` for the name of a class.
        names: one or several names of each class; None: the class names of the data.
        encode: tokenizer of the data; None if the data have none.

    Attributes:
        texts: prompts of each class.

    Raises:
        ValueError: for less than two classes, names that do not fit the classes, and classes whose
            prompts have equal tokens.

    Example:
        >>> import torch
        >>> def encode(texts):
        ...     return {"input_ids": torch.tensor([[len(text)] for text in texts])}
        >>> ClassPrompts(["cat", "horse"], ["a {}", "one {}"], None, encode).texts
        [['a cat', 'one cat'], ['a horse', 'one horse']]
    """

    def __init__(
        self,
        classes: Sequence[str],
        templates: Sequence[str],
        names: Mapping[str, str | list[str]] | None,
        encode: TextEncoder | None,
    ):
        if len(classes) < 2:
            raise ValueError(
                f"templates: the data have {len(classes)} classes. Expected two or more for "
                "zero-shot evaluation. Leave templates out"
            )
        if encode is None:
            raise ValueError(
                "templates: the data source has no tokenizer for prompts. Expected a source of "
                "images and texts, such as captions. Leave templates out, or set encode_texts of "
                "the samples of your own source"
            )
        self.texts: list[list[str]] = []
        for class_names in names_of_classes(classes, names):
            pairs = product(class_names, templates)
            self.texts.append([template.replace(PLACE, name) for name, template in pairs])
        self.inputs = encode(list(chain.from_iterable(self.texts)))
        counts = torch.tensor([len(prompts) for prompts in self.texts])
        self.class_index = torch.arange(len(counts)).repeat_interleave(counts)
        self._check_distinct(classes)

    def _check_distinct(self, classes: Sequence[str]) -> None:
        """Refuse classes that no network can tell apart, as their tokens are equal."""
        rows = torch.cat([value.flatten(1) for value in self.inputs.values()], 1).tolist()
        classes_by_tokens: dict[tuple[tuple[float, ...], ...], str] = {}
        for index, name in enumerate(classes):
            tokens = [tuple(rows[i]) for i in (self.class_index == index).nonzero().flatten()]
            other = classes_by_tokens.setdefault(tuple(sorted(tokens)), name)
            if other != name:
                raise ValueError(
                    f"templates: the prompts of '{other}' and '{name}' have the same tokens. "
                    "Expected other names, words that the tokenizer knows, or a larger length of "
                    "the texts. Set prompt_names"
                )

    def embedding(self, net: Callable[[Batch], Outputs], batch: Batch) -> Tensor | None:
        """Compute the embeddings (C, D) of the classes, of length 1, on the CPU.

        Args:
            net: image-text network, called with a batch.
            batch: batch of the data, whose first image is read together with the prompts.

        Returns:
            The embeddings; None for a network that does not embed the texts of the batch, such as
            recorded outputs.
        """
        first = {
            key: value[:1] if isinstance(value, Tensor) and value.ndim else value
            for key, value in batch.items()
        }
        device = batch["image"].device
        rows: list[Tensor] = []
        for start in range(0, len(self.class_index), CHUNK):
            part = {
                key: value[start : start + CHUNK].to(device) for key, value in self.inputs.items()
            }
            text = net(first | part)["text_embedding"].detach()
            if len(text) != batch_size(part):
                return None
            rows.append(F.normalize(to_float32(text), dim=-1).cpu())
        return class_means(torch.cat(rows), self.class_index, len(self.texts))


def class_means(embedding: Tensor, class_index: Tensor, num_classes: int) -> Tensor:
    """Return the directions of the mean embeddings of classes.

    Args:
        embedding: (N, D), of length 1.
        class_index: class of each row (N,).
        num_classes: number of classes.

    Returns:
        (num_classes, D), of length 1; 0 for a class without a row.

    Example:
        >>> import torch
        >>> class_means(torch.eye(2)[[0, 1, 1]], torch.tensor([0, 0, 1]), 2)
        tensor([[0.7071, 0.7071],
                [0.0000, 1.0000]])
    """
    sums = torch.zeros(num_classes, embedding.shape[1], dtype=embedding.dtype)
    sums.index_add_(0, class_index, embedding)
    return F.normalize(sums, dim=1)


def check_templates(
    templates: Sequence[str] | None, names: Mapping[str, str | list[str]] | None
) -> None:
    """Check the templates of prompts, before the classes of the data are known.

    Raises:
        ValueError: for an empty list, a template without exactly one ``{}``, and names of classes
            without a template.
    """
    if templates is None:
        if names is not None:
            raise ValueError("prompt_names: without effect. Expected templates. Set templates")
        return
    if not templates:
        raise ValueError(
            "templates: no template. Expected at least one text such as 'a photo of a {}', got []"
        )
    for template in templates:
        if template.count(PLACE) != 1:
            raise ValueError(
                "templates: wrong template. Expected one {} for the name of the class, as in "
                f"'a photo of a {{}}', got '{template}'"
            )


def names_of_classes(
    classes: Sequence[str], names: Mapping[str, str | list[str]] | None
) -> list[list[str]]:
    """Return the names of each class in prompts.

    Args:
        classes: class names of the data.
        names: one or several names of each class; None: the class names of the data.

    Raises:
        ValueError: for a class that the data do not have, and a class without a name.
    """
    if names is None:
        return [[name] for name in classes]
    for name in names:
        if name not in classes:
            raise ValueError(
                f"prompt_names: the data have no class '{name}'.{suggestion(name, classes)}"
            )
    by_class: list[list[str]] = []
    for name in classes:
        value = names.get(name, [])
        texts = [value] if isinstance(value, str) else list(value)
        if not texts or not all(text.strip() for text in texts):
            raise ValueError(
                f"prompt_names: no name for the class '{name}'. Expected a text for each of the "
                f"{len(classes)} classes"
            )
        by_class.append(texts)
    return by_class
