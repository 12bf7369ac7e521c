"""Display of a run: one clock for all jobs, and lines in a log file."""

from __future__ import annotations

import io
import time

import pytest
import torch
from rich.console import Console
from torch import nn

from instil import distil
from instil.progress import ProgressState, RunProgress


class Seconds:
    """Clock that a test advances."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_clock_and_the_estimate_go_on_over_all_jobs() -> None:
    clock = Seconds()
    state = ProgressState(total=3, clock=clock)
    state.start("teacher")
    state.step, state.steps = 10, 10
    clock.now = 20.0
    state.start("alone, seed 0")
    state.step, state.steps = 5, 10
    clock.now = 30.0
    # the current one needs 10 s more; the last one 20 s, as the finished one did
    assert state.remaining() == pytest.approx(30.0)
    assert state.text() == (
        "alone, seed 0 (2 of 3), step 5 of 10, 0:00:30 elapsed, about 0:00:30 left"
    )
    state.start("distilled, seed 0")
    clock.now = 61.0
    assert state.text() == "distilled, seed 0 (3 of 3), 0:01:01 elapsed"


def test_a_first_job_estimates_the_others_by_itself() -> None:
    clock = Seconds()
    state = ProgressState(total=2, clock=clock)
    state.start("teacher")
    state.step, state.steps = 1, 4
    clock.now = 5.0
    assert state.remaining() == pytest.approx(15 + 20)


@pytest.mark.parametrize(
    ("speed", "expected"),
    [
        ({"samples_per_second": 1234.5, "memory": 1e9}, "1,234 samples/s"),
        ({"samples_per_second": 12.0, "tokens_per_second": 5120.0}, "5,120 tokens/s"),
        ({"tokens_per_second": 5120.0, "mfu": 0.413}, "5,120 tokens/s, MFU 41%"),
        ({}, ""),
    ],
)
def test_the_speed_of_the_last_record_is_shown(speed: dict[str, float], expected: str) -> None:
    progress = RunProgress(Console(file=io.StringIO()), total=1)
    progress.start("teacher")
    progress.reporting(None)({"losses": {"student/kd": 0.5}, "speed": speed})
    losses = f"kd 0.5, {expected}" if expected else "kd 0.5"
    assert progress.state.text() == f"teacher (1 of 1), {losses}, 0:00:00 elapsed"
    progress.start("student")
    assert progress.state.text() == "student (2 of 2), 0:00:00 elapsed"


def test_more_jobs_than_expected_are_counted() -> None:
    state = ProgressState(total=1)
    state.start("a")
    state.start("b")
    assert (state.index, state.total) == (2, 2)


def test_a_pipe_gets_a_line_for_every_job_and_in_between() -> None:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=False, width=40)
    with RunProgress(console, 2, line_seconds=0.02) as progress:
        progress.start("teacher")
        progress.update(1, 4)
        progress.show_losses({"cross_entropy": 2.5})
        deadline = time.monotonic() + 10
        while "cross_entropy 2.5" not in stream.getvalue() and time.monotonic() < deadline:
            time.sleep(0.01)
        progress.start("alone, seed 0")
    lines = stream.getvalue().splitlines()
    assert lines[0] == "teacher (1 of 2), 0:00:00 elapsed"
    assert any("step 1 of 4, cross_entropy 2.5" in line for line in lines)
    assert any(line.startswith("alone, seed 0 (2 of 2)") for line in lines)


def test_a_terminal_is_redrawn_while_a_step_takes_long() -> None:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=100)
    with RunProgress(console, 1) as progress:
        progress.start("teacher")
        progress.update(1, 4)
        deadline = time.monotonic() + 10
        while "0:00:01 elapsed" not in stream.getvalue() and time.monotonic() < deadline:
            time.sleep(0.05)
    assert "teacher (1 of 1), step 1 of 4, 0:00:01 elapsed" in stream.getvalue()


def test_nothing_is_shown_on_other_ranks() -> None:
    stream = io.StringIO()
    with RunProgress(Console(file=stream), 1, enabled=False, line_seconds=0.01) as progress:
        progress.start("teacher")
        time.sleep(0.05)
    assert stream.getvalue() == ""


def test_distil_shows_step_and_losses_on_stderr(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("instil.progress.LINE_SECONDS", 0.01)
    torch.manual_seed(0)
    batch = {"image": torch.rand(8, 1, 4, 4), "label": torch.arange(8) % 2}

    def net() -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(16, 2))

    records: list[dict[str, object]] = []
    for is_shown in (True, False):
        distil(net(), net(), [batch], epochs=400, report=records.append, progress=is_shown)
        error = capsys.readouterr().err
        assert ("of 400, cross_entropy" in error) == is_shown
    assert len(records) == 800
