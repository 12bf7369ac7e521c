"""Files appear whole or not at all: written under a temporary name, then renamed."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

TEMPORARY = re.compile(r"\..+\.[a-z0-9_]{8}\.part(\.[^.]+)?")


@contextlib.contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Give a temporary path that replaces ``path`` if the block ends without an error.

    The temporary file is new and has a name of its own, so that two processes never share one and
    a symbolic link is never followed. Its content is on the disk before it is renamed, so that a
    power cut leaves the old file or the new one.

    Args:
        path: the file to write; missing folders are made.

    Yields:
        The path of an empty file in the same folder, with the same suffix.

    Raises:
        OSError: if the file cannot be written; the message names ``path``.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        descriptor, name = tempfile.mkstemp(
            prefix=f".{path.stem}.", suffix=f".part{path.suffix}", dir=path.parent
        )
    except OSError as error:
        raise _named(error, path) from error
    os.close(descriptor)
    temporary = Path(name)
    try:
        yield temporary
        # Some writers, and mkstemp, make files that only their owner can read.
        temporary.chmod(0o666 & ~_umask())
        _flush(temporary)
        os.replace(temporary, path)
        _flush(path.parent)
    except Exception as error:
        if not _is_full_disk(error):
            raise
        raise _named(error, path) from error
    finally:
        temporary.unlink(missing_ok=True)


def check_writable(folder: Path) -> None:
    """Check that files can be written to a folder, or that the folder can be created.

    Args:
        folder: the folder; it is not created.

    Raises:
        ValueError: if the folder, or the nearest parent that exists, cannot be written.
    """
    parent = next(path for path in [folder, *folder.absolute().parents] if path.exists())
    try:
        # Rights alone do not show a file system that is read-only.
        tempfile.TemporaryDirectory(dir=parent, prefix=".", suffix=".part").cleanup()
    except OSError as error:
        raise ValueError(
            f"{folder} cannot be written: {error.strerror}. Set another folder"
        ) from error


def remove_temporary_files(folder: Path, older_than: float = 0.0) -> None:
    """Delete what killed processes left of ``atomic`` in a folder.

    Args:
        folder: the folder; its subfolders are left alone.
        older_than: seconds since the last change, for folders that other processes may write to.
    """
    if not folder.is_dir():
        return
    for path in folder.iterdir():
        if TEMPORARY.fullmatch(path.name) and not path.is_dir():
            with contextlib.suppress(FileNotFoundError):
                if time.time() - path.lstat().st_mtime >= older_than:
                    path.unlink()


def _flush(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    if path.is_dir() and os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems cannot sync a folder; the file itself was synced before.
        if not (path.is_dir() and error.errno in (errno.EINVAL, errno.ENOTSUP, errno.EBADF)):
            raise
    finally:
        os.close(descriptor)


def make_readable(folder: Path) -> None:
    """Give the files of a folder the usual rights; some writers make them for their owner alone."""
    for path in folder.iterdir():
        if path.is_file():
            path.chmod(0o666 & ~_umask())


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


FULL = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file would be larger than this process may write",
}


def _full_disk_code(error: Exception) -> int | None:
    """The code of an error that more room would cure, also where a library passes it on as text."""
    if isinstance(error, OSError) and error.errno in FULL:
        return error.errno
    text = str(error)
    return next(
        (code for code in FULL if f"(os error {code})" in text or os.strerror(code) in text), None
    )


def _is_full_disk(error: Exception) -> bool:
    return _full_disk_code(error) is not None


def _named(error: Exception, path: Path) -> OSError:
    """The same error with the path of the file that was to be written."""
    code = _full_disk_code(error)
    if code is None:
        code = getattr(error, "errno", None) or errno.EIO
        return OSError(code, os.strerror(code), str(path))
    older = "; the older file is unchanged" if path.exists() else ""
    return OSError(
        code, f"{FULL[code]}: {path} could not be written{older}. Make room and try again"
    )
