"""Paths of checkpoints: the newest one, and the one before it.

A checkpoint is a file, or the folder of a sharded training.
"""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path

from instil.engine.processes import broadcast_object, rank
from instil.files.atomic import atomic
from instil.files.checksums import (
    DamagedFileError,
    check_appended,
    check_sha256,
    file_sha256,
    json_with_checksum,
    read_json_with_checksum,
)

FILES = "files.json"
"""Checksums of the other files of a folder. It is written last."""
ZIP_START = b"PK"
ZIP_END = b"PK\x05\x06"
ZIP_END_BYTES = 22
log = logging.getLogger("instil")


def previous_path(path: Path) -> Path:
    """Return the path of the checkpoint before the newest one.

    Args:
        path: path of the newest one.
    """
    return path.with_name(f"{path.stem}.previous{path.suffix}")


def unfinished_path(path: Path) -> Path:
    """Return the path of a folder that processes are writing.

    Args:
        path: path of the newest checkpoint.
    """
    return path.with_name(f".{path.stem}.writing{path.suffix}")


def delete_checkpoint_files(path: Path) -> None:
    """Remove a checkpoint and the one before it, on the first rank.

    Args:
        path: path of the newest one.
    """
    if rank() == 0:
        for checkpoint in (path, previous_path(path), unfinished_path(path)):
            remove(checkpoint)


def require_no_other_files(path: Path) -> None:
    """Check that a checkpoint would not replace files of the user.

    Args:
        path: path of the newest checkpoint.

    Raises:
        ValueError: if it is a file or folder that no training has written.
    """
    for file in (path, previous_path(path)):
        if file.is_file() and _is_of_another_kind(file):
            raise ValueError(
                f"checkpoint: {file} is a file that no training has written. Expected the path of "
                "a new file or a checkpoint. Weights are loaded into a model with load_state_dict"
            )
    if path.is_dir() and not (path / FILES).exists() and any(path.iterdir()):
        raise ValueError(
            f"checkpoint: {path} is a folder with other files. Expected the path of a file, such "
            f"as {path / 'checkpoint.pt'}"
        )


def _is_of_another_kind(path: Path) -> bool:
    """Whether a file is complete and no checkpoint; a cut-off or empty one is a damaged one."""
    with path.open("rb") as file:
        start = file.read(len(ZIP_START))
        file.seek(max(path.stat().st_size - ZIP_END_BYTES, 0))
        end = file.read()
    # A checkpoint is a zip archive that the checksum follows.
    return end.startswith(ZIP_END) if start == ZIP_START else bool(start.strip(b"\0"))


def newest_intact(path: Path) -> Path | None:
    """Return the newest undamaged checkpoint, the same on every rank.

    Args:
        path: path of the newest checkpoint.

    Returns:
        This path, that of the checkpoint before it, or None. The log names damaged files.
    """
    newest: Path | None = broadcast_object(_newest_good(path) if rank() == 0 else None)
    return newest


def _newest_good(path: Path) -> Path | None:
    for candidate in (path, previous_path(path)):
        if not candidate.exists():
            continue
        try:
            check_checkpoint(candidate, "It is not used")
        except (DamagedFileError, OSError) as error:
            log.warning("%s", error)
        else:
            if candidate != path:
                log.warning("%s: training continues from the checkpoint before it", path)
            return candidate
    if path.exists():
        log.warning("%s: no undamaged checkpoint; training starts from the beginning", path)
    return None


def keep_previous(path: Path) -> None:
    """Give the newest checkpoint a second name, so that a complete one always exists.

    Args:
        path: path of the newest one, which may be absent.
    """
    if not path.exists():
        return
    if path.is_dir() or previous_path(path).is_dir():
        remove(previous_path(path))
        os.replace(path, previous_path(path))
        return
    link = previous_path(path).with_name(f".{path.stem}.{os.getpid():08d}.part{path.suffix}")
    try:
        os.link(path, link)
        os.replace(link, previous_path(path))
    # A file system without hard links.
    except OSError:
        os.replace(path, previous_path(path))


def remove(path: Path) -> None:
    """Remove a checkpoint, if it exists.

    Args:
        path: file or folder.
    """
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def check_checkpoint(path: Path, remedy: str) -> None:
    """Verify the checksums of a checkpoint.

    Args:
        path: file or folder.
        remedy: the last sentence of the error, without a full stop.

    Raises:
        DamagedFileError: if a file is damaged.
        OSError: if a file cannot be read.
    """
    if not path.is_dir():
        check_appended(path, remedy)
        return
    for name, digest in read_json_with_checksum(path / FILES, remedy)["files"].items():
        check_sha256(path / name, digest, remedy)


def commit_folder(temporary: Path, path: Path) -> None:
    """Give a complete folder the name of the newest checkpoint.

    Args:
        temporary: folder whose files are written.
        path: path of the newest checkpoint.
    """
    files = {file.name: file_sha256(file) for file in sorted(temporary.iterdir())}
    with atomic(temporary / FILES) as part:
        part.write_text(json_with_checksum({"files": files}), encoding="utf-8")
    keep_previous(path)
    os.replace(temporary, path)
