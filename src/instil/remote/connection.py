"""Requests over HTTP, tried again where that may help."""

from __future__ import annotations

import json
import os
import random
import re
import threading
from collections.abc import Mapping
from typing import Any

AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504, 529})
"""Statuses after which the same request may succeed."""
LONGEST = 60.0
"""Seconds between two attempts, unless the server asks for more."""
PATIENCE = 3600.0
"""Seconds that a server may ask us to wait before we give up."""


class Refused(ValueError):
    """The server understood a request and will not answer it; the same request would be refused again."""

    def __init__(self, message: str, status: int):
        super().__init__(message)
        self.status = status


class Unreachable(RuntimeError):
    """No whole answer came, however often the server was asked."""


class Connection:
    """The server at ``url``; ``key`` names the environment variable with the key, which is sent if it is set and never written anywhere.

    A request that fails for a passing reason is sent again up to ``retries`` times, after waits that double (``wait`` seconds at first) and are cut
    by chance, or as long as the server asks for. ``timeout`` is in seconds. Raises ValueError for a URL that is none.
    """

    def __init__(
        self, url: str, key: str, timeout: float = 120.0, retries: int = 6, wait: float = 0.5
    ):
        if not re.match(r"https?://[^/@\s]+(/[^?#@\s]*)?$", url):
            raise ValueError(
                f"url: '{re.sub('//.*@', '//***@', url)}' is no address such as http://127.0.0.1:8080/v1 (a key goes into ${key})"
            )
        self.url, self.key, self.timeout, self.retries, self.wait = (
            url.rstrip("/"),
            key,
            timeout,
            retries,
            wait,
        )
        self.stopped = threading.Event()
        self._pool: Any = None

    @property
    def root(self) -> str:
        """The address without the version of the API, where a server has endpoints of its own."""
        return re.sub(r"/v\d+$", "", self.url)

    def post(self, address: str, body: Mapping[str, Any]) -> Any:
        """The answer to a question. Raises Refused or Unreachable."""
        return self._asked("POST", address, json.dumps(body).encode(), self.retries)

    def get(self, address: str) -> Any:
        """What is there; asked once. Raises Refused or Unreachable."""
        return self._asked("GET", address, None, 0)

    def _asked(self, method: str, address: str, body: bytes | None, retries: int) -> Any:
        trouble, least = "", 0.0
        for attempt in range(retries + 1):
            if attempt and self.stopped.wait(
                max(least, random.uniform(0.5, 1) * min(LONGEST, self.wait * 2 ** (attempt - 1)))
            ):
                break
            try:
                answer = self._sent(method, address, body)
            except _exceptions().HTTPError as error:
                trouble, least = _short(error, self.timeout), 0.0
                continue
            if answer.status in AGAIN:
                trouble, least = (
                    f"{answer.status} {_said(answer.data)}",
                    _asked_for(answer.headers.get("Retry-After")),
                )
                if least > PATIENCE:
                    break
                continue
            if answer.status != 200:
                raise Refused(self._hint(answer.status) + _said(answer.data), answer.status)
            try:
                return json.loads(answer.data)
            except ValueError:
                trouble, least = f"an answer that is no whole JSON: {answer.data[:60]!r}", 0.0
        asked = f"; it asks to wait {least:.0f} s" if least > PATIENCE else ""
        raise Unreachable(
            f"{address} gave no answer in {attempt + 1} attempt{'s' * (attempt > 0)}{asked}; the last: {trouble}"
        )

    def _sent(self, method: str, address: str, body: bytes | None) -> Any:
        if self._pool is None:
            self._pool = _urllib3().PoolManager(maxsize=64)
        secret = os.environ.get(self.key)
        headers = {"Content-Type": "application/json", "Accept": "application/json"} | (
            {"Authorization": f"Bearer {secret}"} if secret else {}
        )
        return self._pool.request(
            method,
            address,
            body=body,
            headers=headers,
            timeout=self.timeout,
            retries=False,
            redirect=False,
        )

    def _hint(self, status: int) -> str:
        if status in (401, 403):
            there = "is not accepted" if os.environ.get(self.key) else "is not set"
            return f"key: the server wants a key, and the environment variable {self.key} {there}; "
        return f"the server refuses ({status}): "


def _urllib3() -> Any:
    try:
        import urllib3
    except ImportError as error:
        raise ImportError(
            'teachers behind a server need urllib3: pip install "instil[remote]"'
        ) from error
    return urllib3


def _exceptions() -> Any:
    return _urllib3().exceptions


def _asked_for(value: str | None) -> float:
    """Seconds that a Retry-After (seconds, or a date) asks to wait."""
    if value is None:
        return 0.0
    try:
        return float(_urllib3().util.Retry().parse_retry_after(value))
    except _exceptions().InvalidHeader:
        return 0.0


def _short(error: Exception, timeout: float) -> str:
    exceptions = _exceptions()
    if isinstance(error, exceptions.NameResolutionError):
        return "there is no such host"
    if isinstance(error, (exceptions.NewConnectionError, exceptions.ConnectTimeoutError)):
        return "nothing answers there"
    if isinstance(error, exceptions.TimeoutError):
        return f"no answer within {timeout:g} s"
    return f"the connection broke ({type(error).__name__})"


def _said(data: bytes) -> str:
    """The message in an error's body."""
    text = data[:2000].decode(errors="replace")
    try:
        found = json.loads(text)
        inner = found.get("error", found) if isinstance(found, dict) else found
        text = str(inner.get("message", inner) if isinstance(inner, dict) else inner)
    except ValueError:
        pass
    return " ".join(text.split())[:300]
