"""Files appear whole or not at all: written under a temporary name, then renamed."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """A temporary path beside ``path`` that takes its place when the block ends well; otherwise ``path`` stays as it was.

    Raises OSError that names ``path`` where the disk is full.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield temporary
        temporary.chmod(
            0o666 & ~_umask()
        )  # some writers (safetensors) make files for the owner alone
        os.replace(temporary, path)
    except Exception as error:
        if not _disk_is_full(error):
            raise
        kept = "; the older file is unchanged" if path.exists() else ""
        raise OSError(
            errno.ENOSPC,
            f"the disk is full: {path} could not be written{kept}. Make room and try again",
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _disk_is_full(error: Exception) -> bool:
    """Also where a library in another language (safetensors) hands the operating system's error on as text."""
    return (
        getattr(error, "errno", None) == errno.ENOSPC
        or f"(os error {errno.ENOSPC})" in str(error)
        or "No space left on device" in str(error)
    )
