"""Slow, oversized, invalid and hostile responses: deadlines, logs, keys and terminals."""

from __future__ import annotations

import copy
import gzip
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from instil.files.printable import printable
from instil.remote import RequestRefusedError, Server, ServerUnreachableError, exchange
from instil.remote.budget import Budget, BudgetExceededError
from instil.remote.claims import Claims
from instil.remote.generation import generate_file, read_prompts
from instil.remote.log import Log, question_key
from tests.cli.test_cli import called
from tests.remote.stub import Handler, likeliest, saying, status, stub, text, vllm

GOOD = {
    "choices": [{"message": {"content": "fine"}, "finish_reason": "stop"}],
    "usage": {"total_tokens": 10},
}


def trickling(parts: list[bytes], pause: float = 0.1) -> Callable[[Handler], None]:
    """Send a response piece by piece without end."""

    def fault(handler: Handler) -> None:
        handler.close_connection = True
        for part in parts:
            handler.wfile.write(part)
            handler.wfile.flush()
        for _ in range(100):
            time.sleep(pause)
            try:
                handler.wfile.write(b" ")
                handler.wfile.flush()
            except OSError:
                return

    return fault


def encoded(body: bytes, encoding: str) -> Callable[[Handler], None]:
    return lambda handler: handler.say(body, headers={"Content-Encoding": encoding})


@pytest.mark.parametrize(
    "parts",
    [
        [b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{"],
        [b"HTTP/1.1 200 OK\r\n\r\n{"],
        [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\n{\r\n"],
        [b"HTTP/1.1 200 OK\r\nX-Odd: "],
        [b""],
    ],
    ids=["body", "until closed", "chunks", "headers", "status line"],
)
def test_the_timeout_is_of_the_whole_answer(parts: list[bytes]) -> None:
    with stub() as server:
        teacher = Server(server.url, timeout=0.5, retries=1)
        server.faults = [trickling(parts)]
        started = time.perf_counter()
        assert teacher.complete(["a"])[0].text == "re: a (0)", "the second attempt"
        assert 0.5 <= time.perf_counter() - started < 3
        server.faults = [trickling(parts), trickling(parts)]
        with pytest.raises(ServerUnreachableError, match=r"no (complete )?response within 0\.5 s"):
            teacher.complete(["b"])


def test_the_size_of_an_answer_is_bounded_before_and_after_decompression(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(exchange, "MAX_BYTES", 2**20)
    bomb = gzip.compress(bytes(2**26))
    assert len(bomb) < 2**17
    with stub() as server:
        teacher = Server(server.url, retries=0)
        for fault in (lambda handler: handler.say(b" " * 2**22), encoded(bomb, "gzip")):
            server.faults = [fault]
            with pytest.raises(RequestRefusedError, match="the response is larger than 1 MiB"):
                teacher.complete(["a"])
        server.faults = [encoded(gzip.compress(json.dumps(GOOD).encode()), "gzip")]
        assert teacher.complete(["a"])[0].text == "fine"
        for body, encoding in ((b"{}", "br"), (b"{}", "gzip"), (bomb[:1000], "gzip")):
            server.faults = [encoded(body, encoding)]
            with pytest.raises(ServerUnreachableError, match=r"the response has (the encoding|a )"):
                teacher.complete(["b"])


@pytest.mark.parametrize("body", [b"[" * 200_000, b"{", b"\xff", b'{"a": ' + b"9" * 9000 + b"}"])
def test_a_body_that_cannot_be_parsed(body: bytes) -> None:
    with stub() as server:
        teacher = Server(server.url, retries=0)
        server.faults = [lambda handler: handler.say(body)]
        with pytest.raises(ServerUnreachableError, match="the response is not complete JSON"):
            teacher.complete(["a"])
        server.faults = [lambda handler: handler.say(body, 400)]
        with pytest.raises(RequestRefusedError, match=r"the server refused the request \(400\)"):
            teacher.complete(["a"])


def test_a_key_is_never_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MY_KEY", "very-secret\r\n")
    with stub() as server:
        Server(server.url, key="MY_KEY").complete(["a"])
        assert server.keys == {"Bearer very-secret"}, "without the line end"
        for value in ("very secret", "very\nsecret", "geheim\u20acnis", "\x1bsecret"):
            monkeypatch.setenv("MY_KEY", value)
            with pytest.raises(ValueError, match=r"key: character \d+ of the \d+ in") as caught:
                Server(server.url, key="MY_KEY")
            assert "secret" not in str(caught.value)
            assert "geheim" not in str(caught.value)
        prompts = tmp_path / "prompts.jsonl"
        prompts.write_text('{"prompt": "a"}\n')
        for key in ("sk-proj-1234567890", "hf_abcdefghijklm", "a1b2c3d4e5f6a7b8c9d0e1f2"):
            arguments = (str(prompts), "--url", server.url, "--out", str(tmp_path / "out"))
            code, out, error = called(capsys, "generate", *arguments, "--key", key)
            assert code == 2
            assert "key: Expected the name of an environment variable" in error
            assert key not in out + error
    assert not any(key in file.read_text() for file in tmp_path.iterdir())
    with pytest.raises(
        ValueError, match=r"url: 'http://host/v1\?\*\*\*' is not a valid address"
    ) as caught:
        Server("http://host/v1?api_key=very-secret")
    assert "very-secret" not in str(caught.value)


ODD_USAGE = [
    {"usage": {"total_tokens": None}},
    {"usage": {"total_tokens": -1}},
    {"usage": {"total_tokens": "many"}},
    {"usage": {"total_tokens": 1e300}},
    {"usage": []},
    {"usage": None, "meta_info": {"prompt_tokens": None}},
    {"usage": None, "timings": None, "tokens_evaluated": None},
    {"usage": None, "timings": {"cache_n": "x"}, "tokens_evaluated": 4, "tokens_predicted": -9},
]


@pytest.mark.parametrize("odd", ODD_USAGE)
def test_a_paid_answer_is_kept_whatever_its_usage_says(odd: dict[str, Any], tmp_path: Path) -> None:
    with stub() as server:
        teacher = Server(server.url, log=tmp_path / "log.jsonl")
        server.faults = [saying(GOOD | odd)]
        assert teacher.complete(["ab"], length=5)[0].text == "fine"
        assert teacher.log.requests == 1
        assert teacher.log.tokens == 2 + 5, "the most that it can have taken"
        assert Server(server.url, log=tmp_path / "log.jsonl").complete(["ab"], length=5)
        assert not server.answered, "no request is repeated"


def test_budgets_hold_whatever_the_usage_says(tmp_path: Path) -> None:
    prompts = [str(index) for index in range(10)]
    with stub() as server:
        teacher = Server(server.url, log=tmp_path / "a", request_budget=2, concurrency=1)
        server.faults = [saying(GOOD | {"usage": {"total_tokens": -1}})] * 10
        with pytest.raises(BudgetExceededError, match="request_budget: 2 of 2 requests are spent"):
            teacher.complete(prompts)
        assert len(server.faults) == 8
        server.faults = [saying({"data": [{"id": "m"}]}), *[saying(GOOD | {"usage": None})] * 10]
        unknown = Server(server.url, log=tmp_path / "b", token_budget=1000, concurrency=2)
        with pytest.raises(
            ValueError, match="responses of this server have no number of used tokens"
        ):
            unknown.complete(prompts)
        assert unknown.log.requests == 10 - len(server.faults), "what was answered is kept"
        server.faults = [saying({"data": [{"id": "m"}]}), saying({"choices": []})]
        with pytest.raises(ValueError, match="has no text"):
            Server(server.url, log=tmp_path / "c").complete(["x"])
        assert Log(tmp_path / "c").requests == 1, "an answer of no use counts"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "ab"),
        ([{"type": "reasoning", "summary": []}, {"type": "text", "text": "b"}], "b"),
        (["a", "b"], "ab"),
        ([], ""),
        (None, ""),
        ("\ud83d\ude00 \ud800!", "\U0001f600 \ufffd!"),
    ],
)
def test_forms_of_a_text(content: Any, expected: str, tmp_path: Path) -> None:
    answer = {"choices": [{"message": {"content": content}, "finish_reason": 7}]}
    with stub() as server:
        server.faults = [saying({"data": [{"id": "m"}]}), saying(answer)]
        teacher = Server(server.url, log=tmp_path / "log.jsonl")
        assert (teacher.complete(["a"])[0].text, len(server.faults)) == (expected, 0)
        assert teacher.complete(["a"])[0] == teacher.complete(["a"])[0]


@pytest.mark.parametrize("content", [5, True, {"text": "a"}, [5], [{"image": "x"}]])
def test_what_is_no_text_is_an_error_and_asked_again(content: Any, tmp_path: Path) -> None:
    with stub() as server:
        teacher = Server(server.url, log=tmp_path / "log.jsonl")
        server.faults = [saying({"choices": [{"message": {"content": content}}]})]
        with pytest.raises(ValueError, match="the server's response has no text"):
            teacher.complete(["a"])
        assert teacher.complete(["a"])[0].text == "re: a (0)"


def test_an_answer_of_another_form_in_the_log_is_asked_for_again(tmp_path: Path) -> None:
    with stub() as server:
        teacher = Server(server.url, log=tmp_path / "log.jsonl")
        teacher.complete(["a"])
        (key,) = teacher.log._offsets
        teacher.log.put(key, [[{"type": "text"}], "stop"], 3, replace=True)
        again = Server(server.url, log=tmp_path / "log.jsonl")
        assert again.complete(["a"])[0].text == "re: a (0)"
        assert sum(server.answered.values()) == 2
        assert Server(server.url, log=tmp_path / "log.jsonl").complete(["a"])
        assert sum(server.answered.values()) == 2


def test_half_a_character_does_not_lose_the_file(tmp_path: Path) -> None:
    prompts, out = tmp_path / "prompts.jsonl", tmp_path / "out.jsonl"
    prompts.write_text('{"prompt": "a \u2028 b"}\n')
    with stub() as server:
        server.faults = [
            saying({"data": [{"id": "m"}]}),
            saying({"choices": [{"message": {"content": "x\ud800y"}}]}),
        ]
        generate_file(prompts, out, Server(server.url))
    assert json.loads(out.read_text(encoding="utf-8"))["completion"] == "x\ufffdy"
    for content, message in (
        (b'{"prompt": "\\ud800"}\n', "prompts.jsonl, line 1: there is half a character"),
        (b'{"prompt": "a"}\n\xff', "prompts.jsonl: byte 16 is not UTF-8"),
        (b"[" * 100_000, "prompts.jsonl, line 1: this is not JSON"),
    ):
        prompts.write_bytes(content)
        with pytest.raises(ValueError, match=message):
            read_prompts(prompts)


@pytest.mark.parametrize("token", ["-5", str(2**31), str(10**30)])
def test_token_numbers_that_no_token_has(token: str) -> None:
    listed = [None, {token: {"logprob": -1.0}, "2": {"logprob": -2.0}}]
    answer = {"choices": [{"prompt_logprobs": listed}], "usage": {"total_tokens": 1}}
    with stub("vllm") as server:
        teacher = Server(server.url)
        teacher.top([[1]], 1)
        server.faults = [saying(answer)]
        with pytest.raises(ValueError, match="vLLM: the token id"):
            teacher.top([[5]], 2)


SHARING = """
import sys
from pathlib import Path
from instil.remote import Server
from instil.remote.budget import BudgetExceededError
url, log, budget = sys.argv[1:]
server = Server(url, log=log, concurrency=4, request_budget=int(budget) or None)
try:
    server.complete([str(index) for index in range(40)])
except BudgetExceededError:
    sys.exit(3)
"""


@pytest.mark.parametrize(("budget", "requests", "code"), [(0, 40, 0), (25, 25, 3)])
def test_processes_that_share_a_log_ask_once_and_share_the_budget(
    tmp_path: Path, budget: int, requests: int, code: int
) -> None:
    with stub(delay=0.1) as server:
        command = [sys.executable, "-c", SHARING, server.url, str(tmp_path / "log"), str(budget)]
        processes = [subprocess.Popen(command) for _ in range(2)]
        assert [process.wait() for process in processes] == [code, code]
        assert sum(server.answered.values()) == requests
        assert set(server.answered.values()) == {1}


def test_a_process_that_was_killed_leaves_no_claim(tmp_path: Path) -> None:
    with stub(delay=0.3) as server:
        command = [sys.executable, "-c", SHARING, server.url, str(tmp_path / "log"), "10"]
        process = subprocess.Popen(command)
        while not server.open:
            assert process.poll() is None
            time.sleep(0.01)
        process.kill()
        process.wait()
        teacher = Server(server.url, log=tmp_path / "log", request_budget=10)
        spent = teacher.log.requests
        teacher.complete([str(index) for index in range(10)])
        assert teacher.log.requests == 10 >= spent


def test_two_users_of_a_log_in_one_process_share_its_claims(tmp_path: Path) -> None:
    log = Log(tmp_path / "log")
    first, second = Budget(log, requests=1), Budget(Log(tmp_path / "log"), requests=1)
    assert first.claims is second.claims is Claims.of(tmp_path / "log")
    with first.reserve(5):
        assert second._reason_against(5, 1, 5).startswith("request_budget: 0 of 1")
        log.put(question_key("/", {}), "answer", 5)
    with pytest.raises(BudgetExceededError), second.reserve(5):
        pass


HANGING = """
import sys
from instil.cli import main
main(["generate", *sys.argv[1:]])
"""


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_an_interrupt_ends_at_once(tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("".join(f'{{"prompt": "{index}"}}\n' for index in range(20)))
    with stub(delay=30.0) as server:
        arguments = [str(prompts), "--url", server.url, "--out", str(tmp_path / "out")]
        process = subprocess.Popen(
            [sys.executable, "-c", HANGING, *arguments],
            stderr=subprocess.PIPE,
            text=True,
            # A test run in the background of a shell ignores SIGINT, and so would its children.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        while server.open < 8:
            assert process.poll() is None
            time.sleep(0.02)
        started = time.perf_counter()
        process.send_signal(signal.SIGINT)
        _, error = process.communicate()
        assert time.perf_counter() - started < 20, "not the 120 seconds of the timeout"
        assert process.returncode == 130
        assert "Stopped." in error


def test_control_characters_are_escaped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        printable("a\x1b]0;owned\x07\u202eb\ud800\n\tc")
        == "a\\x1b]0;owned\\x07\\u202eb\\ud800\n\tc"
    )
    with stub(faults=[status(404, "\x1b]0;owned\x07")]) as server:
        code, out, error = called(
            capsys, "generate", __file__, "--url", server.url, "--out", str(tmp_path / "\x1b[2J")
        )
    assert code == 2
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"prompt": "a"}\n')
    with stub(faults=[status(404, "\x1b]0;owned\x07")]) as server:
        arguments = ("--url", server.url, "--out", str(tmp_path / "out"))
        code, out, error = called(capsys, "generate", str(prompts), *arguments)
    assert (code, "\\x1b]0;owned\\x07" in error, "\x1b" in out + error) == (2, True, False)
    _, out, error = called(capsys, "report", str(tmp_path / "\x1b[2J"))
    assert ("\\x1b[2J" in error, "\x1b" in out + error) == (True, False)


def test_a_damaged_line_of_a_log_is_asked_for_again(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    keys = [question_key("/", {"n": index}) for index in range(3)]
    for key in keys:
        Log(path).put(key, "the answer", 5)
    content = path.read_bytes()
    start = content.index(b"\n") + 1
    end = content.index(b"\n", start)
    for position in range(start, end, 11):
        damaged = bytearray(content)
        damaged[position] ^= 2
        path.write_bytes(damaged)
        with pytest.warns(
            UserWarning, match=r"line 2 of .*log\.jsonl is damaged; its question is sent"
        ):
            log = Log(path)
        assert [log.get(key) for key in keys] == ["the answer", None, "the answer"]
    log.put(keys[1], "again", 5)
    with pytest.warns(UserWarning, match="line 2"):
        assert Log(path).get(keys[1]) == "again"
    with pytest.raises(ValueError, match="tokens: Expected a number of at least 0, got -3"):
        log.put(question_key("/", {}), "x", -3)


VALUES = [None, True, -1, 2**70, 1.5, float("nan"), "", "x", "\ud800", [], {}, [[]]]


def mutated(value: Any, source: random.Random) -> Any:
    """Return the value with one part replaced or removed."""
    if isinstance(value, (dict, list)) and value and source.random() < 0.85:
        key = source.choice(list(value) if isinstance(value, dict) else range(len(value)))
        if source.random() < 0.15:
            del value[key]
        else:
            value[key] = mutated(value[key], source)
        return value
    return copy.deepcopy(source.choice(VALUES))


def test_no_mutation_of_an_answer_ends_in_an_unclear_error() -> None:
    source, messages = random.Random(0), list[str]()
    whole = text("/v1/chat/completions", {"messages": [{"content": "a"}], "seed": 0})
    body = {"prompt": [5, 5], "prompt_logprobs": 2}
    assert likeliest([5], 2)
    with stub("vllm") as server:
        teacher = Server(server.url, retries=0)
        teacher.top([[1]], 1)
        for index in range(300):
            is_text = bool(index % 2)
            answer = copy.deepcopy(whole) if is_text else vllm("/v1/completions", body)
            server.faults = [saying(mutated(answer, source))]
            try:
                if is_text:
                    teacher.complete([str(index)])
                else:
                    teacher.top([[index % 250, 7, index]], 2)
            except (ValueError, ServerUnreachableError) as error:
                messages.append(str(error))
        assert teacher.complete(["a"])
    assert len(messages) > 80
    assert all(message.isprintable() or "\n" in message for message in messages)


def test_no_mutation_of_a_list_of_models_ends_in_an_unclear_error() -> None:
    source, messages = random.Random(0), list[str]()
    for _ in range(60):
        answer = mutated({"data": [{"id": "teacher", "object": "model"}]}, source)
        with stub(faults=[saying(answer)]) as server:
            try:
                Server(server.url)
            except ValueError as error:
                messages.append(str(error))
    assert len(messages) > 20
    assert all(message.startswith(("url: ", "name: ")) for message in messages)
