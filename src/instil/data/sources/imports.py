"""Source ``imports``: the modules that Python files import, as items that users choose."""

from __future__ import annotations

import ast
from collections import Counter
from itertools import chain
from pathlib import Path
from typing import Annotated

from annotated_types import Ge
from typing_extensions import Doc

from instil.data.documents import Document, documents
from instil.data.interactions import MIN_ITEMS, interaction_splits
from instil.data.splits import Splits


def imports(
    path: Annotated[
        str, Doc("stdlib (the modules of this Python's standard library), or a folder of modules")
    ] = "stdlib",
    min_items: Annotated[int, Ge(3), Doc("smallest number of imports of a file")] = 3,
    min_users: Annotated[int, Ge(1), Doc("smallest number of files that import a module")] = 3,
    base: Path = Path(),
) -> Splits:
    """Files of Python code as users, and the modules that they import as items.

    Samples are those of the task ``recommendation``. One import of each file is held out for
    validation, and one for test.

    Args:
        base: folder that relative paths start from.

    Returns:
        Train, validation and test data.

    Raises:
        ValueError: if no file has this number of imports.
    """
    modules = [_imported(document) for document in chain.from_iterable(documents(path, base))]
    counts = Counter(chain.from_iterable(modules))
    names = sorted(name for name, count in counts.items() if count >= min_users)
    indices = {name: index for index, name in enumerate(names)}
    users: list[int] = []
    items: list[int] = []
    num_users = 0
    for imported in modules:
        rows = sorted(indices[name] for name in imported if name in indices)
        if len(rows) >= max(min_items, MIN_ITEMS):
            users += [num_users] * len(rows)
            items += rows
            num_users += 1
    if not num_users:
        raise ValueError(
            f"min_items: no file of '{path}' imports {min_items} modules that {min_users} files "
            "import. Lower min_items or min_users"
        )
    return interaction_splits(users, items)


def _imported(document: Document) -> set[str]:
    """Names of the modules that a file imports, without relative imports."""
    try:
        tree = ast.parse(document.text)
    except SyntaxError:
        return set()
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.partition(".")[0])
    return names
