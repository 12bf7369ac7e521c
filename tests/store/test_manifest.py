"""Descriptions of changes since a store was recorded."""

from __future__ import annotations

from instil.store.differences import changed_lines
from instil.store.manifest import Manifest


def test_a_changed_module_is_shown_by_its_lines() -> None:
    head = "somewhere\n" + "\n".join(f"line = {index}" for index in range(40))
    before, now = f"{head}\ndef one():\n    return 1\n", f"{head}\ndef one():\n    return 2\n"
    manifest = Manifest(binding={"code": [before]})
    (sentence,) = manifest.differences({"code": [now]})
    assert sentence == 'code.0 has changed: line 43 was "    return 1" and is "    return 2"'


def test_new_and_lost_lines() -> None:
    assert changed_lines("a\nb\n", "a\nb\nc\n") == 'line 3 "c" is new'
    assert changed_lines("a\nb\n", "a\n") == 'line 2 "b" is gone'
    many = changed_lines("a\nb\nc\nd\ne\n", "1\nb\n2\nd\n3\n")
    assert many.startswith('line 1 was "a" and is "1", line 3 was "c" and is "2"')
    assert many.endswith(", and 1 further changes")
