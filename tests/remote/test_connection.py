"""Retries, refusals and error messages of a connection."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from instil.remote import RequestRefusedError, Server, ServerUnreachableError
from instil.remote.connection import Connection
from tests.remote.stub import Fault, dropped, half_json, saying, slow, status, stub, truncated

PASSING = {
    "429": status(429),
    "500": status(500),
    "503": status(503, "loading model"),
    "dropped": dropped,
    "timeout": slow,
    "truncated": truncated,
    "half a JSON": half_json,
}


@pytest.mark.parametrize("fault", PASSING.values(), ids=PASSING.keys())
def test_what_passes_is_tried_again(fault: Fault) -> None:
    with stub() as server:
        teacher = Server(server.url, timeout=0.2)
        server.faults = [fault, fault]
        assert teacher.complete(["hello"])[0].text == "re: hello (0)"
        assert sum(server.answered.values()) == 1
        assert teacher.log.requests == 1


@pytest.mark.parametrize("fault", PASSING.values(), ids=PASSING.keys())
def test_what_does_not_pass_ends_after_the_last_attempt(fault: Fault) -> None:
    with stub() as server:
        teacher = Server(server.url, timeout=0.2, retries=2)
        server.faults = [fault] * 3
        with pytest.raises(
            ServerUnreachableError,
            match=r"/v1/chat/completions: no response in 3 attempts; the last error: ",
        ):
            teacher.complete(["hello"])
        assert not server.faults
        assert teacher.complete(["hello"])[0].text == "re: hello (0)"


def test_the_server_says_how_long_to_wait() -> None:
    with stub() as server:
        teacher = Server(server.url)
        server.faults = [status(429, Retry_After="1")]
        began = time.perf_counter()
        teacher.complete(["hello"])
        assert 1 <= time.perf_counter() - began < 2
        for odd in ("Fri, 31 Dec 99999 23:59:59 GMT", "-5", "soon"):
            server.faults = [status(429, Retry_After=odd)]
            assert teacher.complete([odd])[0].text == f"re: {odd} (0)"
        server.faults = [status(429, Retry_After="7200")]
        with pytest.raises(
            ServerUnreachableError,
            match="in 1 attempt; it requests a wait of 7200 s; the last error: 429 busy",
        ):
            teacher.complete(["hello again"])


def test_what_the_server_refuses_is_not_tried_again() -> None:
    with stub() as server:
        teacher = Server(server.url)
        server.faults = [status(400, "this is too long")]
        with pytest.raises(
            RequestRefusedError, match=r"the server refused the request \(400\): this is too long"
        ):
            teacher.complete(["hello"])
        server.faults = [status(302, "over there", Location="http://127.0.0.1:1/")]
        with pytest.raises(RequestRefusedError, match=r"\(302\): over there"):
            teacher.complete(["hello"])


def test_a_server_that_is_not_there() -> None:
    with stub() as server:
        url = server.url
    with pytest.raises(
        ValueError,
        match=(
            rf"url: {url}/models: no response in 1 attempt; the last error: no server listens "
            rf"there. Start the server"
        ),
    ):
        Server(url)
    with pytest.raises(
        ValueError,
        match=(
            r"url: 'localhost:8080' is not a valid address\. Expected one such as "
            r"http://127\.0\.0\.1:8080/v1"
        ),
    ):
        Server("localhost:8080")
    with (
        stub(faults=[status(404, "Not Found")]) as server,
        pytest.raises(
            ValueError, match=r"is not an OpenAI-compatible server .* have their API at .*/v1"
        ),
    ):
        Server(server.url.removesuffix("/v1"))
    with (
        stub(faults=[saying({"hello": "world"})]) as server,
        pytest.raises(ValueError, match=r"url: .* lists no models"),
    ):
        Server(server.url)


def test_the_model_is_one_that_is_there() -> None:
    with stub(models=["teacher-7b", "teacher-70b"]) as server:
        assert Server(server.url, "teacher-7b").name == "teacher-7b"
        with pytest.raises(
            ValueError, match=r"name: .* has no model 'teacher-8b'\. Did you mean teacher-7b"
        ):
            Server(server.url, "teacher-8b")
        with pytest.raises(
            ValueError,
            match=r"name: the server has several models\. Set one\. Expected "
            r"one of teacher-7b, teacher-70b",
        ):
            Server(server.url)


def test_the_key_is_sent_and_written_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", "very-secret")
    with stub() as server:
        teacher = Server(server.url, key="MY_KEY", log=tmp_path / "log.jsonl")
        teacher.complete(["hello"])
        assert server.keys == {"Bearer very-secret"}
        server.faults = [status(401, "no")]
        with pytest.raises(RequestRefusedError) as error:
            teacher.complete(["again"])
        assert str(error.value) == (
            "key: the server requires a key, and the environment variable MY_KEY is not "
            "accepted; no"
        )
    assert "very-secret" not in (tmp_path / "log.jsonl").read_text()
    assert "very-secret" not in repr(vars(teacher)) + repr(vars(teacher.connection))
    monkeypatch.delenv("MY_KEY")
    with (
        stub(faults=[status(401, "no")]) as server,
        pytest.raises(RequestRefusedError, match="the environment variable MY_KEY is not set"),
    ):
        Server(server.url, key="MY_KEY")
    with pytest.raises(
        ValueError,
        match=r"'http://\*\*\*@host/v1' is not a valid address.* \(set the key in \$MY_KEY\)",
    ):
        Connection("http://user:very-secret@host/v1", "MY_KEY")
