"""The package follows the rules of language and layout; each rule finds a planted violation."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.style_rules import RULES

SOURCE = Path(__file__).parents[1] / "src" / "instil"

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


def violations(package: Path) -> list[str]:
    """Violations of the rules in a package or module, with file and rule."""
    found = []
    for path in [package] if package.is_file() else sorted(package.rglob("*.py")):
        text = path.read_text()
        for name, rule in RULES.items():
            place = f"{path.relative_to(SOURCE)}: {name}"
            found += [f"{place}: {violation}" for violation in rule(text)]
    return found


PACKAGES = sorted(path for path in SOURCE.iterdir() if path.suffix == ".py" or path.is_dir())


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.stem)
def test_a_package_follows_the_rules(package: Path) -> None:
    assert violations(package) == []


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
