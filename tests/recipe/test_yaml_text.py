"""Damaged, expensive or unusual YAML gives one clear error with its position."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from instil.recipe import RecipeError, build, load
from instil.recipe.yaml_text import parse

SMALL = """\
data: {name: digits, num_labeled: 60, batch_size: 32}
teacher: {model: cnn, options: {width: 4}}
student: {model: mlp, options: {width: 4}}
objectives:
  cross_entropy: {}
  kd: {temperature: 4, weight: {start: 0, end: 1, until: 0.2}}
train:
  epochs: 2
  optimizer: {type: adamw, lr: 3e-3, groups: [{match: "head.*", lr: 1e-3}]}
stages:
  - {train: {epochs: 1}}
  - {student: previous, repeat: 2}
seeds: [0, 1]
baselines: [alone]
"""
BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12)
)
MERGES = "a0: &a0 {x: 1}\n" + "".join(
    f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 9)}]}}\n" for i in range(1, 12)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BOMB, r"line \d+: the aliases stand for more than 100000 entries"),
        (MERGES, r"line \d+: the aliases stand for more than 100000 entries"),
        ("seeds: &a [*a]", "line 1: an alias stands inside its own anchor"),
        ("seeds: &a {b: *a}", "line 1: an alias stands inside its own anchor"),
        ("seeds: " + "[" * 3000, "line 1: more than 50 levels of nesting"),
        ("seeds: " + "{a: " * 3000, "line 1: more than 50 levels of nesting"),
        ("seeds: !!bool x", "line 1: 'x' is not a valid bool"),
        ("seeds: !!int ''", "line 1: '' is not a valid int"),
        ("seeds: !!float x", "line 1: 'x' is not a valid float"),
        ("seeds: !!timestamp x", "line 1: 'x' is not a valid timestamp"),
        (
            "seeds: 2020-13-45",
            "line 1: '2020-13-45' is not a valid timestamp: month must be in 1..12",
        ),
        ("seeds: !!python/object/apply:os.system [ls]", "could not determine a constructor"),
        (f"seeds: {'9' * 5000}", "line 1: '9+' is not a valid int"),
        ("? [a]\n: b", "line 1: found unhashable key"),
        ("3: a", "the key 3 is not a string. Expected a name; write it in quotes"),
        ("data: {on: a}", r"the key True is not a string"),
        ("data: [{null: a}]", r"the key None is not a string"),
        ("a: 1\na: 2", "line 2: the key 'a' is given twice"),
        ("a: \x00", "unacceptable character"),
    ],
)
def test_odd_yaml_is_one_clear_error(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "odd.yaml"
    path.write_text(text)
    started = time.perf_counter()
    with pytest.raises(RecipeError, match=message) as caught:
        load(path)
    assert str(caught.value).startswith(str(path))
    assert time.perf_counter() - started < 5
    if text not in (BOMB, MERGES):
        with pytest.raises(RecipeError, match=message):
            parse(text, "the value of a")


def test_a_file_that_is_no_utf_8_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes(b"data: digits\nname: \xff\xfe\n")
    with pytest.raises(RecipeError, match=r"a\.yaml: invalid UTF-8 at byte 19"):
        load(tmp_path / "a.yaml")


def test_what_a_recipe_needs_of_yaml_still_works() -> None:
    text = "a: &a {lr: 1e-3, match: '3'}\nb: *a\nc: {<<: *a, lr: 2}\nd: [1, [2, *a]]\ne:\n"
    group = {"lr": 0.001, "match": "3"}
    assert parse(text, "x") == {
        "a": group,
        "b": group,
        "c": {"lr": 2, "match": "3"},
        "d": [1, [2, group]],
        "e": None,
    }
    assert parse("", "x") is None
    assert parse("[" * 40 + "]" * 40, "x")


@pytest.mark.parametrize("changes", [["objectives={3: 1}"], ["stages=[{1: 2}]"]])
def test_keys_that_are_no_text(tmp_path: Path, changes: list[str]) -> None:
    (tmp_path / "a.yaml").write_text(SMALL)
    with pytest.raises(RecipeError, match=r"the key \d is not a string"):
        load(tmp_path / "a.yaml", changes)
    with pytest.raises(RecipeError, match="recipe: the key 3 is not a string"):
        build({"data": "digits", "student": "mlp", "objectives": {3: 1}})


def test_a_recipe_without_a_loss_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(SMALL)
    with pytest.raises(RecipeError, match="objectives: no loss") as caught:
        load(tmp_path / "a.yaml", ["objectives.kd=null", "objectives.cross_entropy=null"])
    assert "{kd: {}}" in str(caught.value)


PIECES = [
    *("null", "true", "3", "-1", "1.5", ".nan", ".inf", "1e400", "''", "x", "[]", "{}", "[[]]"),
    *("{a: 1}", "[1, a]", "2020-01-01", "!!binary aGk=", "!!set {a, b}", "!!int x", "*a", "&a 1"),
    *("'\\ud800'", '"\\ud800"', "0x1F", "1_000", "~", "{type: kd}", "previous", "teacher", "?"),
]


def test_no_mutation_of_a_recipe_ends_in_an_unclear_error(tmp_path: Path) -> None:
    source, path, problems = random.Random(0), tmp_path / "a.yaml", 0
    values = [token for token in SMALL.replace("{", " ").replace("}", " ").split() if token]
    for _ in range(250):
        text = SMALL
        for _ in range(source.choice([1, 1, 2])):
            old = source.choice(values)
            text = text.replace(old.strip(",:[]"), source.choice(PIECES), 1)
        path.write_bytes(text.encode(errors="surrogatepass"))
        try:
            load(path)
        except RecipeError:
            problems += 1
        except FileNotFoundError:
            problems += 1
    assert problems > 100


Keys = tuple[Any, ...]


def places(value: Any, path: Keys = ()) -> list[Keys]:
    """Return the paths of all entries of a value."""
    if not isinstance(value, (dict, list)):
        return []
    inner_places: list[Keys] = []
    for key in value if isinstance(value, dict) else range(len(value)):
        inner_places += [(*path, key), *places(value[key], (*path, key))]
    return inner_places


ODD = [None, True, -1, 2**70, 1.5, "\ud800", [], {}, [[]], {"a": [1]}, float("nan")]


def test_no_value_of_any_entry_ends_in_an_unclear_error() -> None:
    messages = []
    for path in places(yaml.safe_load(SMALL)):
        for value in ODD:
            entries: Any = yaml.safe_load(SMALL)
            inner = entries
            for key in path[:-1]:
                inner = inner[key]
            inner[path[-1]] = value
            try:
                build(entries)
            except RecipeError as error:
                messages.append(str(error))
    assert len(messages) > 200
    assert all(": " in message for message in messages), "each names an entry"
