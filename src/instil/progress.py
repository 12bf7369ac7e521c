"""Progress of several trainings: one live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

LINE_SECONDS = 30.0
"""Longest time in seconds without a line if the output is not a terminal."""


@dataclass
class ProgressState:
    """Position of a run in its sequence of jobs, and its speed.

    Args:
        total: number of jobs.
        clock: monotonic clock in seconds.
    """

    total: int
    clock: Callable[[], float] = time.monotonic
    title: str = "preparing"
    index: int = 0
    step: int = 0
    steps: int = 0
    losses: str = ""
    speed: str = ""
    durations: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.started = self.job_started = self.clock()

    def start(self, title: str) -> None:
        """Begin the next job; its duration counts only if it takes a step."""
        if self.step:
            self.durations.append(self.clock() - self.job_started)
        self.title = title
        self.index += 1
        self.total = max(self.total, self.index)
        self.step = self.steps = 0
        self.losses = self.speed = ""
        self.job_started = self.clock()

    def elapsed(self) -> float:
        """Seconds since the start of the whole run."""
        return self.clock() - self.started

    def remaining(self) -> float | None:
        """Estimated seconds until the end of the last job; None before the first step.

        The estimate assumes that the current job continues at its mean speed. A later job takes the
        mean duration of the finished jobs, or the estimate of the current job if none is finished.
        """
        if not self.step or not self.steps:
            return None
        spent = self.clock() - self.job_started
        current = spent / self.step * (self.steps - self.step)
        later = self.durations or [spent + current]
        return current + sum(later) / len(later) * (self.total - self.index)

    def text(self) -> str:
        """Position, losses, speed, elapsed and remaining time, in one line."""
        parts = [self.title]
        if self.index:
            parts = [f"{self.title} ({self.index} of {self.total})"]
        if self.steps:
            parts.append(f"step {self.step:,} of {self.steps:,}")
        parts += filter(None, (self.losses, self.speed))
        parts.append(f"{_duration(self.elapsed())} elapsed")
        remaining = self.remaining()
        if remaining is not None:
            parts.append(f"about {_duration(remaining)} left")
        return ", ".join(parts)


class RunProgress:
    """Display of a ``ProgressState``, as a context manager.

    On a terminal one line is redrawn several times a second by a thread, so that the clock moves
    also while a step takes long. Elsewhere (a pipe, a log file) a line is printed when a job
    begins and every ``line_seconds``.

    Args:
        console: console to write to.
        total: number of jobs, such as trainings.
        enabled: False to show nothing, as on all ranks except the first.
        line_seconds: longest time between two lines if the output is not a terminal; by default
            ``LINE_SECONDS``.
    """

    def __init__(
        self,
        console: Console,
        total: int,
        enabled: bool = True,
        line_seconds: float | None = None,
    ):
        self.console = console
        self.state = ProgressState(total)
        self.enabled = enabled and not console.quiet
        self.line_seconds = LINE_SECONDS if line_seconds is None else line_seconds
        self._live: AbstractContextManager[Any] | None = None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> RunProgress:
        if not self.enabled:
            return self
        if self.console.is_terminal:
            from rich.live import Live

            self._live = Live(
                get_renderable=self._render,
                console=self.console,
                transient=True,
                refresh_per_second=4,
            )
            self._live.__enter__()
        else:
            self._thread = threading.Thread(target=self._print_lines, daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *error: Any) -> None:
        self._stop.set()
        if self._live is not None:
            self._live.__exit__(*error)
        if self._thread is not None:
            self._thread.join()

    def add_jobs(self, count: int) -> None:
        """Expect further jobs after those that have started."""
        self.state.total = self.state.index + count

    def start(self, title: str) -> None:
        """Begin the next job."""
        self.state.start(title)
        if self._thread is not None:
            self._print()

    def update(self, step: int, steps: int) -> None:
        """Set the position in the current job."""
        self.state.step = step
        self.state.steps = steps

    def reporting(
        self, report: Callable[[dict[str, Any]], None] | None
    ) -> Callable[[dict[str, Any]], None]:
        """Callback for the records of ``fit``: shows losses and speed, then calls ``report``."""

        def show_and_report(record: dict[str, Any]) -> None:
            losses = {name.rpartition("/")[2]: value for name, value in record["losses"].items()}
            self.show_losses(losses)
            self.state.speed = _speed(record.get("speed", {}))
            if report is not None:
                report(record)

        return show_and_report

    def show_losses(self, losses: Mapping[str, float]) -> None:
        """Show these losses until the next ones, or the next job."""
        self.state.losses = ", ".join(f"{name} {value:.4g}" for name, value in losses.items())

    def _print_lines(self) -> None:
        while not self._stop.wait(self.line_seconds):
            self._print()

    def _print(self) -> None:
        self.console.print(self.state.text(), highlight=False, markup=False, soft_wrap=True)

    def _render(self) -> RenderableType:
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        state = self.state
        grid = Table.grid(padding=(0, 1))
        total = state.steps or None
        bar = ProgressBar(total=total, completed=state.step, width=20, pulse=total is None)
        grid.add_row(bar, Text(state.text(), overflow="ellipsis", no_wrap=True))
        return grid


def _speed(rates: Mapping[str, float]) -> str:
    """Tokens or samples per second, such as ``5,120 tokens/s``, with the MFU if it was measured."""
    for name in ("tokens", "samples"):
        if f"{name}_per_second" in rates:
            speed = f"{rates[f'{name}_per_second']:,.0f} {name}/s"
            return f"{speed}, MFU {rates['mfu']:.0%}" if "mfu" in rates else speed
    return ""


def _duration(seconds: float) -> str:
    """Hours, minutes and seconds, such as ``0:01:05``."""
    return str(timedelta(seconds=round(seconds)))
