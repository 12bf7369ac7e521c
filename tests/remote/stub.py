"""Stub servers in the formats of vLLM, SGLang and llama.cpp, with faults on request."""

from __future__ import annotations

import contextlib
import json
import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

VOCABULARY = 257

Fault = Callable[["Handler"], None]


def likeliest(ids: Sequence[int], size: int) -> list[tuple[int, float]]:
    """Return the most likely next tokens: the next id with probability 1/2, then 1/4, ..."""
    return [
        ((ids[-1] + 1 + index) % VOCABULARY, -(index + 1) * math.log(2)) for index in range(size)
    ]


class Handler(BaseHTTPRequestHandler):
    """Request handler that applies the next fault, if there is one."""

    server: Stub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._fault_or(lambda: self.say({"data": [{"id": name} for name in self.server.models]}))

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.counted:
            self.server.keys.add(self.headers.get("Authorization"))
            self.server.open += 1
            self.server.most_open = max(self.server.most_open, self.server.open)
        try:
            time.sleep(self.server.delay)
            self._fault_or(lambda: self._answer(body))
        finally:
            self.server.open -= 1

    def _fault_or(self, answer: Callable[[], None]) -> None:
        with self.server.counted:
            fault = self.server.faults.pop(0) if self.server.faults else None
        if fault is None:
            answer()
        else:
            fault(self)

    def _answer(self, body: dict[str, Any]) -> None:
        answer = self.server.kinds[self.server.kind](self.path, body)
        if answer is None:
            self.say({"error": {"message": "File Not Found"}}, 404)
            return
        with self.server.counted:
            self.server.answered[json.dumps([self.path, body], sort_keys=True)] += 1
        self.say(answer)

    def say(
        self,
        answer: Any,
        status: int = 200,
        headers: dict[str, str] | None = None,
        missing: int = 0,
    ) -> None:
        data = json.dumps(answer).encode() if not isinstance(answer, bytes) else answer
        self.send_response(status)
        for name, value in {
            "Content-Type": "application/json",
            "Content-Length": str(len(data)),
            **(headers or {}),
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data[: len(data) - missing])
        if missing:
            self.close_connection = True

    def log_message(self, *_: Any) -> None:
        pass


class Stub(ThreadingHTTPServer):
    """Stub server with ``faults`` of the next requests and ``answered`` responses per question."""

    daemon_threads = True

    def __init__(self, kind: str, models: Sequence[str], faults: Sequence[Fault], delay: float):
        super().__init__(("127.0.0.1", 0), Handler)
        self.kind, self.models, self.faults, self.delay = kind, list(models), list(faults), delay
        self.answered: Counter[str] = Counter()
        self.keys: set[str | None] = set()
        self.counted = threading.Lock()
        self.open = self.most_open = 0
        self.kinds = {"text": text, "vllm": vllm, "sglang": sglang, "llama": llama}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def handle_error(self, *_: Any) -> None:
        """Ignore a client that closed its connection."""


def text(path: str, body: dict[str, Any]) -> Any:
    """Return chat and text completions only."""
    usage = {"total_tokens": 10}
    if path == "/v1/chat/completions":
        prompt = body["messages"][-1]["content"]
        return {
            "choices": [
                {"message": {"content": f"re: {prompt} ({body['seed']})"}, "finish_reason": "stop"}
            ],
            "usage": usage,
        }
    if path == "/v1/completions":
        return {"choices": [{"text": " and on", "finish_reason": "length"}], "usage": usage}
    return None


def vllm(path: str, body: dict[str, Any]) -> Any:
    if path != "/v1/completions" or "prompt_logprobs" not in body:
        return text(path, body)
    ids, size = body["prompt"], body["prompt_logprobs"]
    listed: list[Any] = [None]
    for end in range(1, len(ids)):
        entries = likeliest(ids[:end], size)
        entries += (
            [(ids[end], -9.0)] if ids[end] not in dict(entries) else []
        )  # it adds the token that stands there
        listed.append(
            {
                str(token): {"logprob": value, "rank": 1, "decoded_token": "x"}
                for token, value in reversed(entries)
            }
        )
    choice = {"text": "x", "finish_reason": "length", "prompt_logprobs": listed}
    return {"choices": [choice], "usage": {"prompt_tokens": len(ids), "total_tokens": len(ids) + 1}}


def sglang(path: str, body: dict[str, Any]) -> Any:
    if path != "/generate":
        return text(path, body)
    assert body["sampling_params"] == {"max_new_tokens": 0, "temperature": 1.0}
    ids, size = body["input_ids"], body["top_logprobs_num"]
    listed = [None] + [
        [[value, token, None] for token, value in likeliest(ids[:end], size)]
        for end in range(1, len(ids))
    ]
    return {
        "text": "",
        "meta_info": {
            "input_top_logprobs": listed,
            "prompt_tokens": len(ids),
            "completion_tokens": 0,
        },
    }


def llama(path: str, body: dict[str, Any]) -> Any:
    if path != "/completion":
        return text(path, body)
    entries = [
        {"id": token, "token": "x", "logprob": value}
        for token, value in likeliest(body["prompt"], body["n_probs"])
    ]
    return {
        "content": "x",
        "completion_probabilities": [{"id": 1, "top_logprobs": entries}],
        "tokens_evaluated": len(body["prompt"]),
        "tokens_predicted": 1,
    }


@contextlib.contextmanager
def stub(
    kind: str = "text",
    models: Sequence[str] = ("teacher",),
    faults: Sequence[Fault] = (),
    delay: float = 0.0,
) -> Iterator[Stub]:
    server = Stub(kind, models, faults, delay)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def status(code: int, message: str = "busy", **headers: str) -> Fault:
    return lambda handler: handler.say(
        {"error": {"message": message}},
        code,
        {name.replace("_", "-"): value for name, value in headers.items()},
    )


def dropped(handler: Handler) -> None:
    handler.close_connection = True
    handler.connection.close()


def slow(handler: Handler) -> None:
    time.sleep(0.5)
    handler.say({"late": True})


def truncated(handler: Handler) -> None:
    """Close the connection in the middle of the response."""
    handler.say({"choices": [{"text": "half of this", "finish_reason": "stop"}]}, missing=20)


def half_json(handler: Handler) -> None:
    handler.say(b'{"choices": [{"text": "ha')


def saying(answer: Any) -> Fault:
    return lambda handler: handler.say(answer)
