"""The package follows the rules of language and layout; each rule finds a planted violation."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.style_rules import RULES, long_sentences, page_prose, phrases

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "instil"
OUTSIDE = ["benchmarks", "examples", "tests"]
"""Folders outside the package that follow the rules of language."""
LANGUAGE_RULES = (
    "line_width",
    "forbidden_names",
    "first_words",
    "banned_phrases",
    "sentence_length",
)
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]

LONG_FUNCTION = "def f() -> None:\n" + "    pass\n" * 41

PLANTED = {
    "line_width": "x = 1  # " + "a" * 100,
    "forbidden_names": "def f(mine):\n    return mine\n",
    "first_words": 'def f():\n    """What a teacher gives."""\n',
    "docstring_sections": 'def f(a, b, c):\n    """Add."""\n    raise ValueError("no")\n',
    "loss_examples": 'def a_loss(student_logits):\n    """Loss."""\n',
    "banned_phrases": 'x = "Beware: the teacher says so"\n',
    "sentence_length": f'"""{"word " * 31}."""\n',
    "one_statement_per_line": "self.a, self.b = 1, 2\n",
    "nested_expressions": "x = [a for b in c for a in b]\ny = 1 if a else 2 if b else 3\n",
    "function_length": LONG_FUNCTION,
    "file_length": "\n" * 251,
}


def violations(package: Path, rules: Iterable[str] = RULES) -> list[str]:
    """Return the violations of rules in a package or module, with file and rule."""
    result = []
    for path in [package] if package.is_file() else sorted(package.rglob("*.py")):
        # This file has the planted violations.
        if path == Path(__file__):
            continue
        text = path.read_text()
        for name in rules:
            prefix = f"{path.relative_to(ROOT)}: {name}"
            result += [f"{prefix}: {violation}" for violation in RULES[name](text)]
    return result


PACKAGES = sorted(path for path in SOURCE.iterdir() if path.suffix == ".py" or path.is_dir())


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.stem)
def test_a_package_follows_the_rules(package: Path) -> None:
    assert violations(package) == []


@pytest.mark.parametrize("folder", OUTSIDE)
def test_a_folder_outside_the_package_follows_the_rules_of_language(folder: str) -> None:
    assert any((ROOT / folder).rglob("*.py"))
    assert violations(ROOT / folder, LANGUAGE_RULES) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_a_page_follows_the_rules_of_language(page: Path) -> None:
    prose = page_prose(page.read_text())
    assert [*phrases(prose), *long_sentences(prose)] == []


def test_a_violation_in_a_page_is_found_in_prose_only() -> None:
    page = "# What it says\n\n```\nsays\n```\n\n| says |\n\nThe teacher says so.\n"
    assert list(phrases(page_prose(page))) == ["'says' in ' The teacher says so. '"]
    assert len(list(long_sentences(page_prose("word " * 31)))) == 1


@pytest.mark.parametrize(
    "phrase",
    ["a name that is no name", "go on with the run", "it has begun", "take another", "closest: kd"],
)
def test_a_phrase_of_the_old_dialect_is_found(phrase: str) -> None:
    assert len(list(RULES["banned_phrases"](f"x = {phrase!r}\n"))) == 1


def test_there_is_no_is_allowed_across_a_line_break() -> None:
    text = 'x = """None if there\n    is no such name, and no longer one."""\n'
    assert not list(RULES["banned_phrases"](text))


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_finds_a_planted_violation(rule: str) -> None:
    assert list(RULES[rule](PLANTED[rule]))


def test_clean_code_has_no_violation() -> None:
    text = (
        '"""Distances."""\n\n\n'
        "def squared_error(a: float, b: float) -> float:\n"
        '    """Return the squared difference of two numbers."""\n'
        "    return (a - b) ** 2\n"
    )
    assert [list(rule(text)) for rule in RULES.values()] == [[] for _ in RULES]
