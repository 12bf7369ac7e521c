"""Parallel requests with an orderly end after an error or an interrupt."""

from __future__ import annotations

import concurrent.futures as futures
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from instil.remote.connection import Connection

GRACE = 1.0
"""Seconds that an interrupt waits for responses in progress."""

Question = TypeVar("Question")
Result = TypeVar("Result")


def run_parallel(
    function: Callable[[Question], Result],
    questions: Iterable[Question],
    connection: Connection,
    num_threads: int,
) -> Iterator[tuple[int, Result]]:
    """Call a function for each question, several at a time.

    After an error, no question is started, and those in progress are completed, so that their
    responses are logged. An interrupt waits one second for them, and then closes their connections.

    Args:
        function: sends the requests of one question.
        questions: arguments of the function.
        connection: connection that the function uses.
        num_threads: number of questions in progress.

    Returns:
        Iterator over the index of a question and its result, in the order of completion.
    """
    connection.stopped.clear()
    pool = futures.ThreadPoolExecutor(num_threads)
    in_progress: dict[futures.Future[Result], int] = {}
    try:
        for index, question in enumerate(questions):
            in_progress[pool.submit(function, question)] = index
        for done in futures.as_completed(in_progress):
            yield in_progress[done], done.result()
        pool.shutdown()
    except BaseException as error:
        # No thread starts a further attempt.
        connection.stopped.set()
        pool.shutdown(wait=False, cancel_futures=True)
        _end(connection, in_progress, None if isinstance(error, Exception) else GRACE)
        raise


def _end(
    connection: Connection, tasks: Iterable[futures.Future[Result]], timeout: float | None
) -> None:
    running = [task for task in tasks if task.running()]
    try:
        futures.wait(running, timeout=timeout)
    finally:
        connection.cut()
        futures.wait(running)
