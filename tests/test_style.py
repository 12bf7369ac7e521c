"""Rules of the code that a program can check."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from instil import catalogue

SOURCE = Path(__file__).parents[1] / "src" / "instil"
FILES = sorted(SOURCE.rglob("*.py"))
METHODS = [(kind, name) for kind in catalogue.kinds() for name in catalogue.files(kind)]
FORBIDDEN = re.compile(r"^_?(utils?|common|helpers?|misc)$")
LONGEST_FUNCTION, LONGEST_FILE = 60, 400
# Sizes of the files that were longer than the limit when the width went from 150 to 100 columns.
LARGER: dict[str, int] = {}
PLACES = r"/work\b|\.\./shared|/tmp/|https?://[^ ]*(?:/simple\b|internal|localhost)"


def relative_name(path: Path) -> str:
    return path.relative_to(SOURCE).as_posix()


def functions(path: Path) -> Iterator[ast.FunctionDef]:
    return (
        node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)
    )


def test_there_are_methods_to_look_at() -> None:
    assert {kind for kind, _ in METHODS} == set(catalogue.kinds())


@pytest.mark.parametrize(("kind", "name"), METHODS)
def test_class_file_and_name_are_one(kind: str, name: str) -> None:
    module = importlib.import_module(catalogue.files(kind)[name])
    with_card = [
        value
        for value in vars(module).values()
        if inspect.isclass(value) and value.__module__ == module.__name__ and "card" in vars(value)
    ]
    suffix = "baseline" if kind == "baseline" else ""
    assert [value.__name__.lower() for value in with_card] == [name.replace("_", "") + suffix]
    assert catalogue.find(kind, name) is with_card[0]


@pytest.mark.parametrize(("kind", "name"), METHODS)
def test_the_card_says_where_the_method_comes_from(kind: str, name: str) -> None:
    card = catalogue.find(kind, name).card
    assert card.title
    if kind == "task":
        return
    if kind in ("baseline", "metric"):
        assert card.use
        return
    if kind in ("weighting", "balance"):
        assert card.paper.startswith("https://")
        return
    sources = {
        "objective": ("labels", "logits", "features", "relations"),
        "scheme": ("offline", "online", "self"),
        "teacher": ("offline", "online", "self"),
    }
    assert card.source in sources[kind]
    assert name in ("cross_entropy", "mean_squared_error", "own_loss") or (
        card.paper.startswith("https://") and card.venue and 1950 < card.year < 2100
    )
    if kind in ("objective", "scheme"):
        assert all((card.equation, card.use, card.pitfalls)), "a page a method is made of them"
        assert card.equation.count("{") == card.equation.count("}")
    if kind == "objective":
        assert card.source == catalogue.files(kind)[name].split(".")[2], "the folder is the source"


@pytest.mark.parametrize("name", catalogue.files("objective"))
def test_an_objective_has_its_function_first(name: str) -> None:
    """An alias has that of the method that it is."""
    module = importlib.import_module(catalogue.files("objective")[name])
    if "card" in vars(catalogue.find("objective", name).__base__):
        return
    functions = [
        getattr(module, loss)
        for loss, where in catalogue.losses().items()
        if where == module.__name__
    ]
    assert functions
    for function in functions:
        assert function.__doc__
        assert (
            inspect.getsourcelines(function)[1]
            < inspect.getsourcelines(catalogue.find("objective", name))[1]
        )


@pytest.mark.parametrize(("kind", "name"), METHODS)
def test_options_are_typed(kind: str, name: str) -> None:
    assert [
        option["name"]
        for option in catalogue.describe(kind, name)["options"]
        if option["type"] == "any"
    ] == []


@pytest.mark.parametrize("path", FILES, ids=relative_name)
def test_a_file_is_named_and_introduced(path: Path) -> None:
    assert not FORBIDDEN.match(path.stem)
    assert not FORBIDDEN.match(path.parent.name)
    tree = ast.parse(path.read_text())
    if tree.body:
        docstring = ast.get_docstring(tree)
        assert docstring, "a module docstring is one sentence with the idea"
    assert len(path.read_text().splitlines()) <= LARGER.get(relative_name(path), LONGEST_FILE)


@pytest.mark.parametrize("path", FILES, ids=relative_name)
def test_functions_are_short_and_typed(path: Path) -> None:
    for function in functions(path):
        where = f"{relative_name(path)}:{function.lineno} {function.name}"
        code = function.body[1:] if ast.get_docstring(function) else function.body
        length = (function.end_lineno or 0) - code[0].lineno + 1 if code else 0
        assert length < LONGEST_FUNCTION, f"{where} is too long"
        arguments = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
        bare = [
            argument.arg
            for argument in arguments
            if argument.annotation is None and argument.arg not in ("self", "cls")
        ]
        assert bare == [], f"{where} has untyped arguments"
        assert function.returns is not None or function.name == "__init__", (
            f"{where} has no return type"
        )


@pytest.mark.parametrize("path", FILES, ids=relative_name)
def test_public_names_have_a_docstring(path: Path) -> None:
    tree = ast.parse(path.read_text())
    public = [
        node
        for node in tree.body
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and not node.name.startswith("_")
    ]
    assert [node.name for node in public if not ast.get_docstring(node)] == []


@pytest.mark.parametrize("path", FILES, ids=relative_name)
def test_nothing_prints_but_the_command_line(path: Path) -> None:
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    printed = [
        call.lineno for call in calls if isinstance(call.func, ast.Name) and call.func.id == "print"
    ]
    assert printed == [] or path.parent.name == "cli"


@pytest.mark.parametrize("path", FILES, ids=relative_name)
def test_nothing_names_the_machine_it_was_written_on(path: Path) -> None:
    assert re.findall(PLACES, path.read_text()) == []
