"""The log loses and repeats no response: incomplete lines, several and killed processes."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from instil.remote import log as module
from instil.remote.log import Log, question_key

KEYS = [question_key("/", {"n": index}) for index in range(400)]


def test_what_is_asked_has_one_name() -> None:
    assert question_key("/a", {"x": 1, "y": [2]}) == question_key("/a", {"y": [2], "x": 1})
    assert (
        len(
            {
                question_key("/a", {"x": 1}),
                question_key("/b", {"x": 1}),
                question_key("/a", {"x": 2}),
            }
        )
        == 3
    )


@pytest.mark.parametrize("in_a_file", [True, False])
def test_answers_come_back_and_are_counted_once(tmp_path: Path, in_a_file: bool) -> None:
    log = Log(tmp_path / "log.jsonl" if in_a_file else None)
    assert log.get(KEYS[0]) is None
    log.put(KEYS[0], {"text": "ä\n"}, 7)
    log.put(KEYS[1], [1, None], 3)
    if in_a_file:
        log.put(KEYS[0], {"text": "other"}, 7)
        log = Log(tmp_path / "log.jsonl")
    assert log.get(KEYS[0]) == {"text": "ä\n"}
    assert log.get(KEYS[1]) == [1, None]
    assert (log.requests, log.tokens) == (2, 10)


def test_half_a_line_is_taken_away(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    log = Log(path)
    for key in KEYS[:3]:
        log.put(key, "answer", 1)
    whole = path.read_bytes()
    for end in range(len(whole) * 2 // 3 + 1, len(whole)):
        path.write_bytes(whole[:end])
        log = Log(path)
        assert (log.requests, log.get(KEYS[2])) == (2, None)
    log.put(KEYS[2], "answer", 1)
    assert path.read_bytes() == whole


def test_a_file_of_another_kind_is_refused_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"prompt": "hello"}\n')
    with pytest.raises(
        ValueError,
        match=r"log: line 1 of .*log.jsonl is not a server response: .*. Set another file",
    ):
        Log(path)
    assert path.read_text() == '{"prompt": "hello"}\n'


WRITER = """
import importlib.util, pathlib, sys
spec = importlib.util.spec_from_file_location("log", sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
log = module.Log(pathlib.Path(sys.argv[2]))
for key in sys.argv[3:]:
    log.put(key, "x" * 2000, 1)
"""


def writer(path: Path, keys: list[str]) -> subprocess.Popen[bytes]:
    """Start a process that writes to a log; it loads one file only to start quickly."""
    return subprocess.Popen([sys.executable, "-c", WRITER, str(module.__file__), str(path), *keys])


def test_several_processes_share_a_file(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    log = Log(path)
    processes = [writer(path, KEYS[start : start + 20]) for start in (0, 10)]
    assert [process.wait() for process in processes] == [0, 0]
    assert log.get(KEYS[0]) == "x" * 2000
    assert (log.requests, log.tokens, len(path.read_text().splitlines())) == (30, 30, 30)


def test_a_writer_that_is_killed_loses_nothing_that_it_had_put(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    process = writer(path, KEYS)
    while not path.exists() or path.stat().st_size < 20_000:
        assert process.poll() is None
        time.sleep(0.001)
    process.kill()
    process.wait()
    there = path.read_bytes().count(b"\n")
    log = Log(path)
    assert log.requests == there > 5
    for key in KEYS[: there + 5]:
        log.put(key, "x" * 2000, 1)
    assert Log(path).requests == there + 5
