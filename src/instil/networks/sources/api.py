"""Source ``api:``: language models behind an OpenAI-compatible API as classifiers of texts."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Sequence
from pathlib import Path

from torch import nn

from instil.files.cache import cache_folder
from instil.networks.api_classifier import ApiClassifier, read_texts
from instil.networks.model_source import ModelRequest, ModelSource
from instil.networks.unknown_options import check_options
from instil.remote.server import KEY, Server

PLACEHOLDER = "{text}"


class ApiSource(ModelSource):
    """Models of a server by their name, such as ``api:gpt-4o-mini``; they are teachers only.

    Options: ``url`` of the API; ``texts``, JSON lines with ``text`` and ``key``; ``prompt`` with
    ``{text}``; ``labels``, the label word of each class; ``system``; and ``key``, ``log``,
    ``concurrency``, ``request_budget``, ``token_budget``, ``retries``, ``timeout`` as those of
    ``remote``.
    """

    package = "urllib3"
    extra = "remote"
    learns_by = "nothing"
    by_index = True

    def build(self, request: ModelRequest) -> nn.Module:
        self.library(request.spec)
        parameters = inspect.signature(api_classifier).parameters
        names = [name for name in parameters if name not in ("name", "base")]
        check_options(request.spec, request.options, names)
        missing = [name for name in ("url", "texts", "prompt") if name not in request.options]
        if missing:
            raise ValueError(f"{request.spec} needs the option {missing[0]}")
        return api_classifier(name=request.name, base=request.base, **request.options)

    def files(self, request: ModelRequest) -> list[Path]:
        texts = request.options.get("texts")
        return [] if texts is None else [request.base / texts]


def api_classifier(
    name: str,
    url: str,
    texts: str,
    prompt: str,
    labels: Sequence[str] | None = None,
    system: str | None = None,
    key: str = KEY,
    log: str | None = None,
    concurrency: int = 8,
    request_budget: int | None = None,
    token_budget: int | None = None,
    retries: int = 6,
    timeout: float = 120.0,
    base: Path = Path(),
) -> nn.Module:
    """Connect to a language model that classifies texts.

    Args:
        name: name of the model on the server.
        url: address of the API, such as http://127.0.0.1:8080/v1.
        texts: JSON lines with the ``text`` of each sample and its ``key``.
        prompt: message with ``{text}``, which requests a label word.
        labels: label word of each class, in the order of the classes; None for the class names.
        system: system message; None for none.
        key: environment variable with the server's key.
        log: file with all answers; None for one in ``$INSTIL_CACHE`` or ``~/.cache/instil``.
        concurrency: number of requests at a time.
        request_budget: largest number of requests in the log; None for no limit.
        token_budget: largest number of tokens in the log; None for no limit.
        retries: number of retries per request.
        timeout: seconds for one whole answer.
        base: folder that relative paths start from.

    Raises:
        ValueError: if the server does not answer, or the prompt has no ``{text}``.
    """
    if PLACEHOLDER not in prompt:
        raise ValueError(f"prompt: expected a text with {PLACEHOLDER}, got '{prompt}'")
    content = read_texts(base / texts)
    path = base / log if log else _default_log(url, name)
    server = Server(
        url, name, key, path, concurrency, request_budget, token_budget, retries, timeout
    )
    return ApiClassifier(server, content, prompt, labels, system)


def _default_log(url: str, name: str) -> Path:
    digest = hashlib.sha256(f"{url} {name}".encode()).hexdigest()[:16]
    return cache_folder() / "remote" / f"{digest}.jsonl"
