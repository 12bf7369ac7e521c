"""Requests over HTTP, tried again where that may help."""

from __future__ import annotations

import json
import os
import random
import re
import threading
from collections.abc import Mapping
from typing import Any

from instil.files.printable import printable
from instil.remote.exchange import DecodingError, Exchanges, ResponseTooLargeError, urllib3

RETRYABLE_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504, 529})
"""Statuses after which the same request may succeed."""
MAX_WAIT = 60.0
"""Seconds between two attempts, unless the server asks for more."""
MAX_TIMEOUT = 86_400.0
SECRET_PREFIX = re.compile(r"(sk|pk|hf|gsk|ghp|xai|r8|key)[-_]|AKIA[A-Z0-9]|AIza")
"""How keys of services begin."""
MAX_RETRY_AFTER = 3600.0
"""Seconds that a server may ask us to wait before we give up."""


class RequestRefusedError(ValueError):
    """The server understood a request and will not answer it; the same request would be refused again."""

    def __init__(self, message: str, status: int):
        super().__init__(message)
        self.status = status


class ServerUnreachableError(RuntimeError):
    """No whole answer came, however often the server was asked."""


class Connection:
    """The server at ``url``; ``key`` names the environment variable with the key, which is sent if it is set and never written anywhere.

    A request that fails for a passing reason is sent again up to ``retries`` times, after waits that double (``wait`` seconds at first) and are cut
    by chance, or as long as the server asks for. ``timeout`` is in seconds, for one whole answer. Raises ValueError for a URL that is none, for a
    ``key`` that is no name of a variable, and for a value of it that no header can carry; a key is never part of a message.
    """

    def __init__(
        self, url: str, key: str, timeout: float = 120.0, retries: int = 6, wait: float = 0.5
    ):
        if not re.match(r"https?://[^/@\s]+(/[^?#@\s]*)?$", url):
            shown = printable(re.sub(r"\?.*", "?***", re.sub("//.*@", "//***@", url)))
            raise ValueError(
                f"url: '{shown}' is no address such as http://127.0.0.1:8080/v1 (a key goes into ${_variable(key)})"
            )
        if not 0 < timeout <= MAX_TIMEOUT:
            raise ValueError(
                f"timeout: Expected seconds above 0 and at most {MAX_TIMEOUT:.0f}, got {timeout:g}"
            )
        self.url, self.key, self.timeout, self.retries, self.wait = (
            url.rstrip("/"),
            _variable(key),
            timeout,
            retries,
            wait,
        )
        self.stopped = threading.Event()
        self._exchanges = Exchanges()
        self._headers()

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
                max(least, random.uniform(0.5, 1) * min(MAX_WAIT, self.wait * 2 ** (attempt - 1)))
            ):
                break
            try:
                answer = self._exchanges.send(method, address, body, self._headers(), self.timeout)
            except ResponseTooLargeError as error:
                raise RequestRefusedError(f"{address}: {error}", 200) from error
            except TimeoutError:
                trouble, least = f"no whole answer within {self.timeout:g} s", 0.0
                continue
            except DecodingError as error:
                trouble, least = f"an answer with {error}", 0.0
                continue
            except urllib3().exceptions.HTTPError as error:
                trouble, least = _short(error, self.timeout), 0.0
                continue
            if answer.status in RETRYABLE_STATUSES:
                trouble, least = (
                    f"{answer.status} {_said(answer.data)}",
                    _asked_for(answer.headers.get("Retry-After")),
                )
                if least > MAX_RETRY_AFTER:
                    break
                continue
            if answer.status != 200:
                raise RequestRefusedError(
                    self._hint(answer.status) + _said(answer.data), answer.status
                )
            try:
                return json.loads(answer.data)
            except (ValueError, RecursionError):
                trouble, least = f"an answer that is no whole JSON: {answer.data[:60]!r}", 0.0
        asked = f"; it asks to wait {least:.0f} s" if least > MAX_RETRY_AFTER else ""
        raise ServerUnreachableError(
            f"{address} gave no answer in {attempt + 1} attempt{'s' * (attempt > 0)}{asked}; the last: {trouble}"
        )

    def cut(self) -> None:
        """End the requests that are under way."""
        self._exchanges.cut()

    def _secret(self) -> str:
        """The key, without the line end that files and shells leave behind it; empty where there is none."""
        secret = os.environ.get(self.key, "").strip()
        odd = next((i for i, one in enumerate(secret, 1) if not "!" <= one <= "~"), None)
        if odd is not None:
            raise ValueError(
                f"key: character {odd} of the {len(secret)} in the environment variable {self.key} is"
                " none of a key. Expected letters, digits and signs of ASCII, without blanks; copy"
                " the key again"
            )
        return secret

    def _headers(self) -> dict[str, str]:
        secret = self._secret()
        return {
            "Content-Type": "application/json",
            "Accept": "application/json",
            "Accept-Encoding": "gzip",
        } | ({"Authorization": f"Bearer {secret}"} if secret else {})

    def _hint(self, status: int) -> str:
        if status in (401, 403):
            there = "is not accepted" if self._secret() else "is not set"
            return f"key: the server wants a key, and the environment variable {self.key} {there}; "
        return f"the server refuses ({status}): "


def _variable(key: str) -> str:
    """The name of an environment variable; ValueError, which does not show it, for what may be a key itself."""
    is_name = re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", key) is not None
    looks_secret = SECRET_PREFIX.match(key) is not None or (
        len(key) >= 20 and re.search("[a-z]", key) and re.search("[0-9]", key)
    )
    if is_name and (key in os.environ or not looks_secret):
        return key
    raise ValueError(
        "key: Expected the name of an environment variable, such as INSTIL_REMOTE_KEY, got something"
        f" else of {len(key)} characters (not shown: it may be the key itself). Put the key into the"
        " variable and give the variable's name"
    )


def _asked_for(value: str | None) -> float:
    """Seconds that a Retry-After (seconds, or a date) asks to wait."""
    if value is None:
        return 0.0
    try:
        return max(0.0, float(urllib3().util.Retry().parse_retry_after(value)))
    except (urllib3().exceptions.InvalidHeader, ValueError, OverflowError):
        return 0.0


def _short(error: Exception, timeout: float) -> str:
    exceptions = urllib3().exceptions
    if isinstance(error, exceptions.NameResolutionError):
        return "there is no such host"
    if isinstance(error, (exceptions.NewConnectionError, exceptions.ConnectTimeoutError)):
        return "nothing answers there"
    if isinstance(error, exceptions.TimeoutError):
        return f"no answer within {timeout:g} s"
    if isinstance(error, exceptions.SSLError):
        return f"the connection is not secure: {printable(str(error))[:200]}"
    return f"the connection broke ({type(error).__name__})"


def _said(data: bytes) -> str:
    """The message in an error's body."""
    text = data[:2000].decode(errors="replace")
    try:
        found = json.loads(text)
        inner = found.get("error", found) if isinstance(found, dict) else found
        text = str(inner.get("message", inner) if isinstance(inner, dict) else inner)
    except (ValueError, RecursionError):
        pass
    return printable(" ".join(text.split()))[:300]
