"""YAML as plain data: safe, with limits, and with one clear error per problem."""

from __future__ import annotations

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from instil.recipe.errors import RecipeError

DEEPEST = 50  # levels of mappings and lists
LARGEST = 100_000  # entries, of which an alias counts as often as it is used
BAD_VALUES = (ValueError, KeyError, IndexError, AttributeError, TypeError, OverflowError)
"""Exceptions of PyYAML for a tag such as ``!!int`` on text that is none."""


class _Loader(yaml.SafeLoader):
    """Safe YAML in which a key given twice is an error and ``1e-3`` is a number, as in YAML 1.2."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.depth > DEEPEST:
            event: Any = self.peek_event()  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(
                None, None, f"more than {DEEPEST} levels of nesting", event.start_mark
            )
        self.depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except BAD_VALUES as error:
            tag = str(node.tag).removeprefix("tag:yaml.org,2002:")
            raise yaml.constructor.ConstructorError(
                None,
                None,
                f"{str(node.value)[:40]!r} is not a valid {tag}: {error}",
                node.start_mark,
            ) from error

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Any] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key '{key.value}' is given twice", key.start_mark
                    )
                seen.add(key.value)
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """Safe YAML that quotes every text which ``_Loader`` would read as a number, such as 0E0."""


for _kind in (_Loader, _Dumper):
    _kind.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"),
        list("-+.0123456789"),
    )


def to_text(data: Any, **options: Any) -> str:
    """Write plain data as YAML that ``parse`` reads to the same data.

    Args:
        data: the data.
        options: options of ``yaml.dump``.
    """
    text: str = yaml.dump(data, Dumper=_Dumper, **options)
    return text


def read_yaml(path: Path) -> Any:
    """Read a YAML file as plain data.

    Args:
        path: the file.

    Returns:
        The data.

    Raises:
        RecipeError: if the file is not valid UTF-8 or YAML; the message has its name and the line.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise RecipeError(
            f"{path}: invalid UTF-8 at byte {error.start}. Save the file as UTF-8"
        ) from error
    return parse(text, str(path))


def parse(text: str, where: str) -> Any:
    """Parse YAML as plain data.

    Args:
        text: the YAML text.
        where: name of its place, for messages.

    Returns:
        The data.

    Raises:
        RecipeError: if the text is not YAML, has keys that are not strings, is nested more than 50
            levels deep, or has more than 100,000 entries when its aliases are written out.
    """
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            _entries(node, {}, where)
            data = loader.construct_document(node)
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        context = f" {error.context}" if error.context else ""
        raise RecipeError(f"{where}{line}: {error.problem}{context}") from None
    except yaml.YAMLError as error:
        raise RecipeError(f"{where}: {error}") from None
    except RecursionError:
        raise RecipeError(f"{where}: the text is nested too deeply") from None
    check_keys(data, where)
    return data


def check_keys(data: Any, where: str) -> None:
    """Check that all keys of nested mappings are text, as JSON needs it.

    Args:
        data: plain data.
        where: name of its place, for messages.

    Raises:
        RecipeError: if a key is a number, a truth value or null.
    """
    if isinstance(data, dict):
        for key in data:
            if not isinstance(key, str):
                raise RecipeError(
                    f"{where}: the key {key!r} is not a string. Expected a name; write it in quotes"
                    f" ('{str(key).lower()}') if it is one"
                )
    parts: list[Any] = []
    if isinstance(data, dict):
        parts = list(data.values())
    elif isinstance(data, list):
        parts = data
    for part in parts:
        check_keys(part, where)


def _entries(node: yaml.Node, counts: dict[int, int], where: str) -> int:
    """Number of entries under a node with its aliases written out; 0 marks a node under way."""
    if id(node) in counts:
        if counts[id(node)] == 0:
            raise RecipeError(
                f"{where}, line {node.start_mark.line + 1}: an alias stands inside its own anchor"
            )
        return counts[id(node)]
    counts[id(node)] = 0
    total = 1
    if isinstance(node, yaml.CollectionNode):
        for entry in node.value:
            for part in entry if isinstance(entry, tuple) else (entry,):
                total += _entries(part, counts, where)
    if total > LARGEST:
        raise RecipeError(
            f"{where}, line {node.start_mark.line + 1}: the aliases stand for more than {LARGEST}"
            " entries. Expected a recipe; write out what is needed"
        )
    counts[id(node)] = total
    return total
