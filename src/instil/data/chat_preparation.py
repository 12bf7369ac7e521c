"""Preparation of conversations: encoded by several processes, kept on the disk by fingerprint."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import Any

from instil.data.chat_chunk import Chunk
from instil.data.chat_encoding import ChatEncoder, Encoded
from instil.data.chat_files import ChatFile, ChatSource, total_bytes
from instil.data.chat_tally import Tally
from instil.data.chat_worker import receive, send
from instil.data.token_arrays import MANIFEST, TokenArrays, write_arrays
from instil.files.cache import cache_folder
from instil.files.locks import FileLock

FORMAT = 3
"""Version of the files and of the rules that make tokens of rows."""
BYTES_PER_PROCESS = 8 << 20
"""Size of the data for which a further process pays: its start takes a few seconds."""
MAX_PROCESSES = 16
Part = tuple[list[Encoded], Tally]


def prepared(
    sources: Sequence[ChatSource], encoder: ChatEncoder, processes: int | None = None
) -> TokenArrays:
    """Return the tokens of conversations, from the cache if they are there.

    The cache is ``$INSTIL_CACHE/tokens`` or ``~/.cache/instil/tokens``. An entry belongs to the
    contents of the files, the tokenizer, the template and ``loss_on``.

    Args:
        sources: files or data sets of one split.
        encoder: encoder of the rows.
        processes: number of processes; None: by the size of the data and the number of cores.

    Raises:
        ValueError: for a row of another form, and files without a usable row.
    """
    folder = cache_folder() / "tokens" / fingerprint(sources, encoder)
    # Other processes of this training wait here, and then read the files.
    with FileLock(folder.with_suffix(".lock")):
        if (arrays := _intact(folder)) is None:
            _remove(folder)
            write_arrays(folder, encoded(sources, encoder, processes))
            arrays = TokenArrays(folder)
    return arrays


def fingerprint(sources: Sequence[ChatSource], encoder: ChatEncoder) -> str:
    """Return the SHA-256 of all that the tokens depend on."""
    tokenizer = encoder.tokenizer
    inner = getattr(tokenizer, "inner", None)
    template = encoder.template
    facts = {
        "format": FORMAT,
        "contents": [source.digest() for source in sources],
        "tokenizer": type(tokenizer).__name__ if inner is None else inner.to_str(),
        "ends": list(tokenizer.ends),
        "bos": tokenizer.bos,
        "template": None if template is None else [template.source, template.tokens],
        "loss_on": encoder.loss_on,
    }
    if template is not None and template.reads_parts:
        facts["reads_parts"] = True
    if encoder.preferences:
        facts["preferences"] = True
    if encoder.images is not None:
        facts["processor"] = encoder.images.digest()
        # The images of a file with the same content may differ in another folder.
        files = [source for source in sources if isinstance(source, ChatFile)]
        facts["folders"] = [str(file.path.resolve().parent) for file in files]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:40]


def _intact(folder: Path) -> TokenArrays | None:
    """Arrays of a folder; None if it does not exist or is damaged."""
    if not (folder / MANIFEST).is_file():
        return None
    try:
        return TokenArrays(folder)
    except (ValueError, OSError, KeyError, EOFError):
        return None


def _remove(folder: Path) -> None:
    """Delete a damaged entry, and what a killed process left of it."""
    for path in (folder, *folder.parent.glob(f".{folder.name}.*.part")):
        shutil.rmtree(path, ignore_errors=True)


def encoded(
    sources: Sequence[ChatSource], encoder: ChatEncoder, processes: int | None = None
) -> Iterator[Part]:
    """Yield the tokens of all rows in their order, a few rows at a time.

    Args:
        sources: files or data sets.
        encoder: encoder of the rows.
        processes: number of processes; None: by the size of the data and the number of cores.
    """
    chunks = chain.from_iterable(source.chunks() for source in sources)
    if processes is None:
        by_size = total_bytes(list(sources)) // BYTES_PER_PROCESS
        processes = min(by_size, os.cpu_count() or 1, MAX_PROCESSES)
    if processes < 2:
        yield from map(encoder.encode_chunk, chunks)
        return
    yield from _in_parallel(chunks, encoder, processes)


def _in_parallel(chunks: Iterator[Chunk], encoder: ChatEncoder, processes: int) -> Iterator[Part]:
    workers = [_Worker(encoder) for _ in range(processes)]
    idle = deque(workers)
    lock = threading.Lock()

    def encode(chunk: Chunk) -> Part:
        with lock:
            worker = idle.popleft()
        try:
            return worker.encode(chunk)
        finally:
            with lock:
                idle.append(worker)

    pending: deque[Future[Part]] = deque()
    try:
        with ThreadPoolExecutor(processes) as pool:
            for chunk in chunks:
                pending.append(pool.submit(encode, chunk))
                # A bounded queue: a reader that runs ahead would hold the file in memory.
                if len(pending) > 2 * processes:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
    finally:
        for worker in workers:
            worker.close()


class _Worker:
    """Process with an encoder.

    A plain command and not ``multiprocessing``, which would run the user's script again, or copy a
    process with threads.
    """

    def __init__(self, encoder: ChatEncoder):
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            "TOKENIZERS_PARALLELISM": "false",
            "OMP_NUM_THREADS": "1",
        }
        command = [sys.executable, "-m", "instil.data.chat_worker"]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, env=environment)
        assert self.process.stdin is not None
        send(self.process.stdin, encoder)

    def encode(self, chunk: Chunk) -> Part:
        """Encode rows in the process."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        send(self.process.stdin, chunk)
        result: Any = receive(self.process.stdout)
        if isinstance(result, ValueError):
            raise result
        if result is None:
            raise RuntimeError(
                f"a process that encodes conversations ended with status {self.process.wait()}. "
                "Set data.processes=1"
            )
        part: Part = result
        return part

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()
        self.process.wait()
