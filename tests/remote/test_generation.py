"""Prompt files are completed, also after errors and interrupts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from instil.data.sources.text import text
from instil.remote import Server
from instil.remote.generation import _problem_of, generate_file
from instil.remote.server import Completion
from tests.cli.test_cli import called
from tests.remote.stub import Stub, saying, status, stub


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.jsonl"
    path.write_text(
        "\n".join(json.dumps({"id": index, "prompt": f"question {index}?"}) for index in range(30))
        + "\n\n"
    )
    return path


def entries(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_student_learns_from_what_the_teacher_wrote(prompts: Path, tmp_path: Path) -> None:
    out = tmp_path / "taught.jsonl"
    seen: list[tuple[int, int]] = []
    with stub() as server:
        assert (
            generate_file(
                prompts,
                out,
                Server(server.url),
                lambda done, of: seen.append((done, of)),
                temperature=0.0,
            )
            == 30
        )
    assert entries(out)[7] == {
        "id": 7,
        "prompt": "question 7?",
        "completion": "re: question 7? (0)",
        "finish_reason": "stop",
    }
    assert seen == [(count, 30) for count in range(1, 31)]
    row = text(str(out), length=64).train.__getitems__([0])
    assert bytes(row["label"][row["valid"]].tolist()[:-1]).decode().startswith("re: question ")


def test_lines_that_cannot_be_learned_from_are_named(prompts: Path, tmp_path: Path) -> None:
    out = tmp_path / "taught.jsonl"
    with stub() as server:
        teacher = Server(server.url, concurrency=1)
        server.faults = [
            status(400, "context of 512 exceeded"),
            saying({"choices": [{"message": {"content": " \n"}}]}),
        ]
        with pytest.raises(
            ValueError,
            match=(
                r"prompts\.jsonl, line 1 \(and 1 other lines\): no usable completion: "
                r".*context of 512 exceeded\. Remove it"
            ),
        ):
            generate_file(prompts, out, teacher)
        assert sum(server.answered.values()) == 28
        with pytest.raises(
            ValueError,
            match=r"prompts\.jsonl, line 2: no usable completion: the completion is empty",
        ):
            generate_file(prompts, out, teacher)
    with stub(
        faults=[saying({"data": [{"id": "m"}]}), *[status(400, "no argument top_k")] * 30]
    ) as server:
        teacher = Server(server.url)
        with pytest.raises(
            ValueError,
            match=r"none of the 30 prompts has a usable completion: .*no argument top_k",
        ):
            generate_file(prompts, out, teacher)
    assert not out.exists()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("hello", "line 2: this is not JSON"),
        ('{"text": "hello"}', "line 2: there is no 'prompt'"),
        ('{"prompt": " "}', "line 2: there is no 'prompt'"),
    ],
)
def test_prompts_of_another_form_are_refused_before_the_server_is_asked(
    line: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"prompt": "a"}\n' + line)
    code, _, error = called(
        capsys,
        "generate",
        str(path),
        "--url",
        "http://127.0.0.1:9/v1",
        "--out",
        str(tmp_path / "out.jsonl"),
    )
    assert (code, message in error) == (2, True)
    path.write_text("\n")
    code, _, error = called(
        capsys,
        "generate",
        str(path),
        "--url",
        "http://127.0.0.1:9/v1",
        "--out",
        str(tmp_path / "out.jsonl"),
    )
    assert (code, "no prompts" in error) == (2, True)


def test_the_command_says_what_is_wrong(
    prompts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "taught.jsonl"
    code, _, error = called(
        capsys, "generate", str(prompts), "--url", "http://127.0.0.1:9/v1", "--out", str(out)
    )
    assert code == 2
    assert error.startswith(
        "Error: url: http://127.0.0.1:9/v1/models: no response in 1 attempt; the last error: "
        "no server listens there. Start the server"
    )
    with stub() as server:
        code, _, error = called(
            capsys,
            "generate",
            str(prompts),
            "--url",
            server.url,
            "--out",
            str(out),
            "--set",
            "top_k",
        )
        assert (
            code,
            "--set: malformed option. Expected KEY=VALUE, such as --set top_p=0.9, got top_k"
            in error,
        ) == (
            2,
            True,
        )
        code, _, error = called(
            capsys, "generate", str(prompts), "--url", server.url, "--out", str(out), "--set", "n=4"
        )
        assert (code, "--set n: one completion per request is kept" in error) == (2, True)
        code, _, error = called(
            capsys,
            "generate",
            str(prompts),
            "--url",
            server.url,
            "--out",
            str(out),
            "--request-budget",
            "3",
        )
        assert (code, "request_budget: 3 of 3 requests are spent" in error) == (2, True)
        code, output, _ = called(
            capsys,
            "generate",
            str(prompts),
            "--url",
            server.url,
            "--out",
            str(out),
            "--set",
            "top_k=null",
            "--plain",
        )
        assert (code, "data.path=" in output) == (0, True)
        assert sum('"top_k"' not in question for question in server.answered) == 30


def command(server: Stub, prompts: Path, out: Path) -> list[str]:
    return [
        sys.executable,
        "-m",
        "instil.cli",
        "generate",
        str(prompts),
        "--url",
        server.url,
        "--out",
        str(out),
        "--concurrency",
        "3",
    ]


@pytest.mark.slow
def test_a_killed_command_goes_on_and_asks_nothing_twice(prompts: Path, tmp_path: Path) -> None:
    out = tmp_path / "taught.jsonl"
    with stub(delay=0.05) as server:
        process = subprocess.Popen(command(server, prompts, out), stdout=subprocess.DEVNULL)
        while sum(server.answered.values()) < 10:
            time.sleep(0.005)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        time.sleep(0.2)
        before = sum(server.answered.values())
        num_logged = len((tmp_path / "taught.jsonl.log").read_bytes().split(b"\n")) - 1
        assert 10 - 3 <= num_logged <= before <= 13
        assert not out.exists()
        subprocess.run(command(server, prompts, out), check=True, stdout=subprocess.DEVNULL)
        assert sum(server.answered.values()) - before == 30 - num_logged, (
            "only requests in progress are repeated"
        )
    assert [entry["completion"] for entry in entries(out)] == [
        f"re: question {index}? (0)" for index in range(30)
    ]
    assert len((tmp_path / "taught.jsonl.log").read_text().splitlines()) == 30


def test_an_empty_answer_at_the_limit_says_what_spent_the_tokens() -> None:
    cut = _problem_of(Completion("", "length"))
    assert cut.startswith("the completion is empty although it reached the token limit")
    assert _problem_of(Completion(" ", "stop")) == "the completion is empty"
    assert _problem_of(Completion("yes", "length")) == ""
