"""Requests to one server over HTTP, with retries."""

from __future__ import annotations

import json
import os
import random
import re
import threading
from collections.abc import Mapping
from typing import Any

from instil.files.printable import printable
from instil.remote.credentials import read_key, variable_name
from instil.remote.exchange import (
    DecodingError,
    Exchanges,
    HttpResponse,
    ResponseTooLargeError,
    urllib3,
)

RETRYABLE_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504, 529})
"""Status codes after which the same request may succeed."""
MAX_WAIT = 60.0
"""Longest wait between two attempts in seconds, unless the server requests a longer one."""
MAX_TIMEOUT = 86_400.0
MAX_RETRY_AFTER = 3600.0
"""Longest wait in seconds that a server may request; a longer one ends the attempts."""
MAX_SHOWN_BYTES = 2000
"""Part of an error response that is read for its message."""


class RequestRefusedError(ValueError):
    """The server refused a request, and would refuse the same request again.

    Args:
        message: text of the error.
        status: status code of the response.
    """

    def __init__(self, message: str, status: int):
        super().__init__(message)
        self.status = status


class ServerUnreachableError(RuntimeError):
    """The server sent no complete response in any attempt."""


class _AttemptFailedError(Exception):
    """Temporary failure of one attempt; ``delay``: wait in seconds that the server requests."""

    def __init__(self, problem: str, delay: float = 0.0):
        super().__init__(problem)
        self.delay = delay


class Connection:
    """Connection to a server.

    A request that fails temporarily is sent again after a random wait, whose upper bound doubles
    with each attempt. A longer wait that the server requests is respected.

    Args:
        url: address of the API, such as ``http://127.0.0.1:8080/v1``.
        key: name of the environment variable with the API key. The key is sent if it is set, and
            never written anywhere.
        timeout: seconds for one complete response.
        retries: maximum number of further attempts of a request.
        wait: upper bound of the first wait in seconds.

    Raises:
        ValueError: for an invalid URL, for a ``key`` that is not the name of a variable, and for a
            key that no header can hold. The message never contains the key.
    """

    def __init__(
        self, url: str, key: str, timeout: float = 120.0, retries: int = 6, wait: float = 0.5
    ):
        if not re.match(r"https?://[^/@\s]+(/[^?#@\s]*)?$", url):
            # A URL may contain a password or a key.
            shown = printable(re.sub(r"\?.*", "?***", re.sub("//.*@", "//***@", url)))
            raise ValueError(
                f"url: '{shown}' is not a valid address. Expected one such as "
                f"http://127.0.0.1:8080/v1 (set the key in ${variable_name(key)})"
            )
        if not 0 < timeout <= MAX_TIMEOUT:
            raise ValueError(
                f"timeout: Expected seconds above 0 and at most {MAX_TIMEOUT:.0f}, got {timeout:g}"
            )
        self.url = url.rstrip("/")
        self.key = variable_name(key)
        self.timeout = timeout
        self.retries = retries
        self.wait = wait
        self.stopped = threading.Event()
        self._exchanges = Exchanges()
        self._headers()

    @property
    def root(self) -> str:
        """Address without the version of the API; servers have further endpoints there."""
        return re.sub(r"/v\d+$", "", self.url)

    def post(self, address: str, body: Mapping[str, Any], has_content: bool = True) -> Any:
        """Send a request with a JSON body and return the JSON of the response.

        Args:
            address: URL of the endpoint.
            body: content of the request.
            has_content: False: the response may be empty and is not read.

        Raises:
            RequestRefusedError: if the server refuses the request.
            ServerUnreachableError: if there is no complete response in any attempt.
        """
        data = json.dumps(body).encode()
        return self._request("POST", address, data, self.retries, has_content)

    def get(self, address: str) -> Any:
        """Return the JSON at an address, in a single attempt.

        Args:
            address: URL of the endpoint.

        Raises:
            RequestRefusedError: if the server refuses the request.
            ServerUnreachableError: if there is no complete response.
        """
        return self._request("GET", address, None, 0)

    def cut(self) -> None:
        """Close the connections of all requests in progress."""
        self._exchanges.cut()

    def _request(
        self, method: str, address: str, body: bytes | None, retries: int, has_content: bool = True
    ) -> Any:
        problem = ""
        delay = 0.0
        for attempt in range(retries + 1):
            if attempt and self.stopped.wait(max(delay, self._backoff(attempt))):
                break
            try:
                return self._attempt(method, address, body, has_content)
            except _AttemptFailedError as failure:
                problem = str(failure)
                delay = failure.delay
            if delay > MAX_RETRY_AFTER:
                break
        requested = f"; it requests a wait of {delay:.0f} s" if delay > MAX_RETRY_AFTER else ""
        attempts = "1 attempt" if attempt == 0 else f"{attempt + 1} attempts"
        raise ServerUnreachableError(
            f"{address}: no response in {attempts}{requested}; the last error: {problem}"
        )

    def _backoff(self, attempt: int) -> float:
        """Return a random wait before an attempt, so that clients do not return all at once."""
        return random.uniform(0.5, 1) * min(MAX_WAIT, self.wait * 2.0 ** (attempt - 1))

    def _attempt(self, method: str, address: str, body: bytes | None, has_content: bool) -> Any:
        response = self._send(method, address, body)
        if response.status in RETRYABLE_STATUSES:
            raise _AttemptFailedError(
                f"{response.status} {_error_message(response.data)}",
                _retry_after(response.headers.get("Retry-After")),
            )
        if response.status != 200:
            message = self._refusal(response.status) + _error_message(response.data)
            raise RequestRefusedError(message, response.status)
        try:
            return json.loads(response.data) if has_content else None
        except (ValueError, RecursionError):
            raise _AttemptFailedError(
                f"the response is not complete JSON: {response.data[:60]!r}"
            ) from None

    def _send(self, method: str, address: str, body: bytes | None) -> HttpResponse:
        try:
            return self._exchanges.send(method, address, body, self._headers(), self.timeout)
        except ResponseTooLargeError as error:
            raise RequestRefusedError(f"{address}: {error}", 200) from error
        except TimeoutError:
            problem = f"no complete response within {self.timeout:g} s"
        except DecodingError as error:
            problem = f"the response has {error}"
        except urllib3().exceptions.HTTPError as error:
            problem = _short_reason(error, self.timeout)
        raise _AttemptFailedError(problem)

    def _headers(self) -> dict[str, str]:
        secret = read_key(self.key)
        headers = {
            "Content-Type": "application/json",
            "Accept": "application/json",
            "Accept-Encoding": "gzip",
        }
        return headers | {"Authorization": f"Bearer {secret}"} if secret else headers

    def _refusal(self, status: int) -> str:
        if status in (401, 403):
            state = "is not accepted" if os.environ.get(self.key, "").strip() else "is not set"
            return (
                f"key: the server requires a key, and the environment variable {self.key} {state}; "
            )
        return f"the server refused the request ({status}): "


def _retry_after(value: str | None) -> float:
    """Return the wait in seconds of a ``Retry-After`` header, which holds seconds or a date."""
    if value is None:
        return 0.0
    try:
        return max(0.0, float(urllib3().util.Retry().parse_retry_after(value)))
    except (urllib3().exceptions.InvalidHeader, ValueError, OverflowError):
        return 0.0


def _short_reason(error: Exception, timeout: float) -> str:
    exceptions = urllib3().exceptions
    if isinstance(error, exceptions.NameResolutionError):
        return "unknown host"
    if isinstance(error, (exceptions.NewConnectionError, exceptions.ConnectTimeoutError)):
        return "no server listens there"
    if isinstance(error, exceptions.TimeoutError):
        return f"no response within {timeout:g} s"
    if isinstance(error, exceptions.SSLError):
        return f"the connection is not secure: {printable(str(error))[:200]}"
    return f"the connection broke ({type(error).__name__})"


def _error_message(data: bytes) -> str:
    """Return the message in the body of an error response."""
    text = data[:MAX_SHOWN_BYTES].decode(errors="replace")
    try:
        content = json.loads(text)
        inner = content.get("error", content) if isinstance(content, dict) else content
        text = str(inner.get("message", inner) if isinstance(inner, dict) else inner)
    except (ValueError, RecursionError):
        pass
    return printable(" ".join(text.split()))[:300]
