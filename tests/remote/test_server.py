"""Each question is sent once, in parallel and within the budget; values of completions and tops."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from instil.remote import Server, ServerUnreachableError
from instil.remote.budget import BudgetExceededError
from tests.remote.stub import likeliest, saying, status, stub

ROWS = [[3, 4, 5, 9], [7], [49, 0]]


def test_answers_are_asked_for_once(tmp_path: Path) -> None:
    prompts = ["a", "b", "a", "a"]
    with stub(delay=0.02) as server:
        first = Server(server.url, log=tmp_path / "log.jsonl").complete(prompts, temperature=0.0)
        assert [one.text for one in first] == [f"re: {prompt} (0)" for prompt in prompts]
        again = Server(server.url, log=tmp_path / "log.jsonl")
        assert again.complete(prompts, temperature=0.0) == first
        assert sorted(server.answered.values()) == [1, 1]
        assert again.complete(["a"], temperature=0.0, seed=1)[0].text == "re: a (1)"
        assert again.log.requests == 3


def test_so_many_at_a_time() -> None:
    with stub(delay=0.1) as server:
        Server(server.url, concurrency=3).complete([str(index) for index in range(12)])
        assert server.most_open == 3


def test_what_is_asked_draws_from_all_tokens() -> None:
    with stub() as server:
        teacher = Server(server.url)
        teacher.complete(
            ["a"],
            length=5,
            temperature=0.5,
            system="be brief",
            options={"top_k": None, "stop": ["x"]},
        )
        teacher.complete(["a"], plain=True)
        chat, plain = server.answered
    assert (
        '"messages": [{"content": "be brief", "role": "system"}, {"content": "a", "role": "user"}]'
        in chat
    )
    assert '"max_tokens": 5, "messages"' in chat
    assert '"min_p": 0.0' in chat
    assert "top_k" not in chat
    assert '"stop": ["x"]' in chat
    assert '"prompt": "a"' in plain
    assert '"top_k": -1, "top_p": 1.0' in plain


def test_the_budget_holds_over_processes_and_names_its_argument(tmp_path: Path) -> None:
    prompts = [str(index) for index in range(10)]
    with stub(delay=0.01) as server:
        with pytest.raises(
            BudgetExceededError,
            match=(
                r"request_budget: 4 of 4 requests are spent; raise the limit .* are in "
                r".*log.jsonl"
            ),
        ):
            Server(server.url, log=tmp_path / "log.jsonl", request_budget=4).complete(prompts)
        assert sum(server.answered.values()) == 4
        with pytest.raises(BudgetExceededError, match="request_budget: 6 of 6"):
            Server(server.url, log=tmp_path / "log.jsonl", request_budget=6).complete(prompts)
        assert sum(server.answered.values()) == 6
        with pytest.raises(
            BudgetExceededError,
            match="token_budget: 60 of 75 tokens are spent, and the next request may take 21",
        ):
            Server(server.url, log=tmp_path / "log.jsonl", token_budget=75).complete(
                prompts, length=20
            )
        assert sum(server.answered.values()) == 6
        with pytest.raises(BudgetExceededError, match="token_budget: 70 of 80"):
            Server(server.url, log=tmp_path / "log.jsonl", token_budget=80).complete(
                prompts, length=10
            )
        assert sum(server.answered.values()) == 7
        assert len(Server(server.url, log=tmp_path / "log.jsonl").complete(prompts)) == 10


def test_tokens_that_nobody_counts_have_no_budget() -> None:
    answer = {"choices": [{"text": "x"}]}
    with stub() as server:
        server.faults = [saying({"data": [{"id": "m"}]}), saying(answer)]
        with pytest.raises(
            ValueError,
            match=(
                r"token_budget: the responses of this server have no number of used tokens\. Set "
                r"request_budget"
            ),
        ):
            Server(server.url, token_budget=1000).complete(["a"])


def test_an_answer_without_text_is_an_error_and_not_kept() -> None:
    with stub() as server:
        teacher = Server(server.url)
        server.faults = [saying({"choices": []})]
        with pytest.raises(
            ValueError, match=r"the server's response has no text: {'choices': \[\]}"
        ):
            teacher.complete(["a"])
        assert teacher.complete(["a"])[0].text == "re: a (0)"


def test_one_failure_loses_no_other_answer(tmp_path: Path) -> None:
    prompts = [str(index) for index in range(8)]
    with stub(delay=0.01) as server:
        teacher = Server(server.url, log=tmp_path / "log.jsonl", concurrency=2, retries=0)
        server.faults = [status(500)]
        with pytest.raises(ServerUnreachableError):
            teacher.complete(prompts)
        assert sum(server.answered.values()) == teacher.log.requests
        teacher.complete(prompts)
        assert set(server.answered.values()) == {1}
        assert len(server.answered) == 8


@pytest.mark.parametrize("kind", ["vllm", "sglang", "llama"])
def test_the_likeliest_tokens_of_every_position(kind: str, tmp_path: Path) -> None:
    with stub(kind) as server:
        teacher = Server(server.url, log=tmp_path / "log.jsonl")
        tops = teacher.top(ROWS, 3)
        for top, row in zip(tops, ROWS, strict=True):
            for position in range(len(row)):
                expected = likeliest(row[: position + 1], 3)
                assert top.indices[position].tolist() == [token for token, _ in expected]
                torch.testing.assert_close(
                    top.values[position], torch.tensor([value for _, value in expected])
                )
                torch.testing.assert_close(top.log_tail[position], torch.tensor(math.log(1 / 8)))
        before = sum(server.answered.values())
        again = Server(server.url, log=tmp_path / "log.jsonl").top(ROWS, 3)
        assert all(
            torch.equal(one.values, other.values) for one, other in zip(tops, again, strict=True)
        )
        assert sum(server.answered.values()) - before <= 3, "only the probes of the endpoints"
        total = teacher.log.tokens
    assert (
        total == {"vllm": 6 + 3 + 4, "sglang": 5 + 2 + 3, "llama": 2 + 3 + 4 + 5 + 2 + 2 + 3}[kind]
    )


def test_the_snippet_of_the_page_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    page = (Path(__file__).parents[2] / "docs" / "remote.md").read_text()
    (snippet,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    with stub("vllm") as server:
        exec(snippet.replace("http://localhost:8000/v1", server.url), {})
    assert capsys.readouterr().out == (
        "re: What is a pistil? (0) stop\ntorch.Size([5, 20]) torch.Size([5, 20]) torch.Size([5])\n"
    )


def test_a_server_that_only_writes_is_refused() -> None:
    with (
        stub("text") as server,
        pytest.raises(
            ValueError,
            match=(
                r"returns no log-probabilities of a text, .*the role 'top' is not available.* "
                r"instil generate"
            ),
        ),
    ):
        Server(server.url).top(ROWS, 3)


def _vllm(*listed: dict[str, Any]) -> dict[str, Any]:
    positions = [{token: {"logprob": value} for token, value in one.items()} for one in listed]
    return {"choices": [{"prompt_logprobs": [None, *positions]}], "usage": {"total_tokens": 1}}


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (
            {"choices": [{"text": "x"}]},
            "the response has no log-probabilities in the format of vLLM: KeyError: "
            "'prompt_logprobs'",
        ),
        (_vllm({"1": -1.0}), "vLLM: too few log-probabilities at a position. Expected 2, got 1"),
        (
            _vllm({"1": -1.0, "2": None}),
            "the response has no log-probabilities in the format of vLLM: TypeError",
        ),
        (
            _vllm({"1": -1.0, "2": -math.inf}),
            "vLLM: too few log-probabilities at a position. Expected 2, got 1",
        ),
        (
            _vllm({"1": -0.1, "2": -0.2}),
            "sum to more than 1. Expected a softmax over the whole vocabulary at temperature 1",
        ),
        (
            _vllm({"1": -1.0, "2": -2.0}, {"1": -1.0, "2": -2.0}),
            "vLLM: wrong number of positions. Expected 1, got 2",
        ),
    ],
)
def test_log_probabilities_that_are_missing_or_wrong(answer: dict[str, Any], message: str) -> None:
    with stub("vllm") as server:
        teacher = Server(server.url)
        teacher.top([[1]], 1)
        server.faults = [saying(answer)]
        with pytest.raises(ValueError, match=message):
            teacher.top([[5]], 2)
        teacher.top([[5]], 2)


def test_more_than_the_server_gives() -> None:
    with stub("vllm") as server:
        teacher = Server(server.url)
        teacher.top([[1]], 1)
        server.faults = [
            status(400, "Requested prompt logprobs of 64, which is greater than max allowed: 20")
        ]
        with pytest.raises(
            ValueError,
            match=(
                r"greater than max allowed: 20 \(the request was for the 64 most likely tokens "
                r"after each of up to 1 tokens\)"
            ),
        ):
            teacher.top([[5]], 64)


def test_answers_of_another_model_are_not_mixed(tmp_path: Path) -> None:
    with stub("vllm") as server:
        Server(server.url, log=tmp_path / "log.jsonl").top(ROWS, 3)
        other = Server(server.url, log=tmp_path / "log.jsonl")
        server.faults = [saying(_vllm({"1": -3.0}))]
        with pytest.raises(
            ValueError,
            match=(
                r"log: .*log.jsonl has responses of another model than 'teacher' at the server "
                r"now. Set another file"
            ),
        ):
            other.top(ROWS, 3)


def test_a_tail_below_the_last_digit_is_small_and_finite() -> None:
    with stub("vllm") as server:
        teacher = Server(server.url)
        teacher.top([[1]], 1)
        server.faults = [saying(_vllm({"1": 0.0, "2": -40.0}))]
        (top,) = teacher.top([[5]], 2)
    assert math.log(2**-24) == pytest.approx(float(top.log_tail), abs=1e-3)
