"""A real llama.cpp server in this process."""

from __future__ import annotations

import importlib.util
import json
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

needed = pytest.mark.skipif(
    importlib.util.find_spec("xllamacpp") is None, reason="needs the package xllamacpp"
)


@contextmanager
def serving(
    path: Path,
    parallel: int = 1,
    exact: bool = False,
    draft: Path | None = None,
    num_draft_tokens: int = 4,
) -> Iterator[str]:
    """Start a server for a GGUF file and yield its address.

    ``exact`` sets a cache of 32 instead of 16 bits. ``draft`` proposes tokens.
    """
    import xllamacpp

    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(path)
    (
        parameters.n_ctx,
        parameters.n_parallel,
        parameters.port,
        parameters.warmup,
        parameters.verbosity,
    ) = 512, parallel, 0, False, -1
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = 1
    if exact:
        parameters.cache_type_k = parameters.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
        parameters.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    if draft is not None:
        speculative = parameters.speculative
        speculative.draft.mparams.path = str(draft)
        speculative.draft.n_max = num_draft_tokens
        speculative.draft.cache_type_k = parameters.cache_type_k
        speculative.draft.cache_type_v = parameters.cache_type_v
        threads = speculative.draft.cpuparams, speculative.draft.cpuparams_batch
        threads[0].n_threads = threads[1].n_threads = 1
        simple = xllamacpp.common_speculative_type.COMMON_SPECULATIVE_TYPE_DRAFT_SIMPLE
        speculative.types = [simple]
    server = xllamacpp.Server(parameters)
    yield str(server.listening_address)
    del server


def request(url: str, address: str, **body: Any) -> Any:
    """Send a request and return the response."""
    request = urllib.request.Request(
        url + address, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)
