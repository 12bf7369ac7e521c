"""A file lock belongs to one process and ends with it."""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from typing import Any

from instil.files.locks import FileLock


def hold(path: Path, ready: Any) -> None:
    FileLock(path).acquire()
    ready.set()
    # The process ends here, without a release.


def wait_in(path: Path, ready: Any, done: Any) -> None:
    lock = FileLock(path)
    lock.acquire()
    ready.set()
    done.wait(60)


def test_a_lock_is_refused_while_another_process_holds_it(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ready, done = context.Event(), context.Event()
    process = context.Process(target=wait_in, args=(tmp_path / "lock", ready, done))
    process.start()
    assert ready.wait(60)
    lock = FileLock(tmp_path / "lock")
    assert not lock.try_acquire()
    done.set()
    process.join()
    assert lock.try_acquire()


def test_the_end_of_a_process_releases_its_lock(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    process = context.Process(target=hold, args=(tmp_path / "folder" / "lock", ready))
    process.start()
    process.join()
    assert ready.is_set()
    assert FileLock(tmp_path / "folder" / "lock").try_acquire()


def test_a_released_lock_can_be_taken_again(tmp_path: Path) -> None:
    lock = FileLock(tmp_path / "lock")
    lock.acquire()
    lock.release()
    assert FileLock(tmp_path / "lock").try_acquire()
