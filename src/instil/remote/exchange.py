"""HTTP requests with a deadline for the complete response and a bound on its size."""

from __future__ import annotations

import contextlib
import functools
import socket
import threading
import zlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

MAX_BYTES = 2**28
"""Maximum size of a response, also after decompression.

20 log-probabilities at each of 100,000 positions take less.
"""
BLOCK_BYTES = 2**16
_thread = threading.local()


class HttpResponse(NamedTuple):
    """Status, headers and decompressed body of a response."""

    status: int
    headers: Any
    data: bytes


class ResponseTooLargeError(ValueError):
    """A response is larger than ``MAX_BYTES``."""


class DecodingError(ValueError):
    """The body of a response is not compressed in the way that its header states."""


class Exchange:
    """One request, which another thread can end by closing its connection."""

    def __init__(self) -> None:
        self.is_cut = False
        self._connection: Any = None
        self._socket: Any = None
        self._lock = threading.Lock()

    def set_connection(self, connection: Any) -> None:
        """Store the connection of the request, and its socket if it is open.

        Args:
            connection: connection of urllib3.
        """
        with self._lock:
            self._connection = connection
            # urllib3 drops the socket of a response that ends with its connection: keep it here.
            self._socket = getattr(connection, "sock", None) or self._socket

    def cut(self) -> None:
        """Close the connection, so that a thread that reads from it stops at once."""
        with self._lock:
            self.is_cut = True
            sock = getattr(self._connection, "sock", None) or self._socket
            if sock is not None:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)

    def finish(self) -> None:
        """Forget the connection, which other requests may use from now on."""
        with self._lock:
            self._connection = None
            self._socket = None


class Exchanges:
    """All requests in progress, over one pool of connections."""

    def __init__(self) -> None:
        self._in_progress: set[Exchange] = set()
        self._lock = threading.Lock()
        self._pool: Any = None

    def cut(self) -> None:
        """End all requests."""
        with self._lock:
            in_progress = list(self._in_progress)
        for exchange in in_progress:
            exchange.cut()

    def send(
        self,
        method: str,
        address: str,
        body: bytes | None,
        headers: Mapping[str, str],
        timeout: float,
    ) -> HttpResponse:
        """Send a request and read the complete response.

        Args:
            method: ``GET`` or ``POST``.
            address: URL.
            body: content of the request.
            headers: headers of the request.
            timeout: seconds until the last byte of the response.

        Returns:
            The response, decompressed.

        Raises:
            TimeoutError: if the response is not complete in time, or the request was cut.
            ResponseTooLargeError: if the response is larger than ``MAX_BYTES``.
            DecodingError: if its compression is damaged or was not requested.
            urllib3.exceptions.HTTPError: if the connection breaks.
        """
        errors = urllib3().exceptions
        with self._deadline(timeout) as exchange:
            try:
                response = self._send(method, address, body, headers, timeout)
            except errors.HTTPError as error:
                if exchange.is_cut:
                    raise TimeoutError from error
                raise
            # A body that ends with its connection looks complete after a cut.
            if exchange.is_cut:
                raise TimeoutError
            return response

    def _send(
        self,
        method: str,
        address: str,
        body: bytes | None,
        headers: Mapping[str, str],
        timeout: float,
    ) -> HttpResponse:
        if self._pool is None:
            self._pool = urllib3().PoolManager(maxsize=64)
            self._pool.pool_classes_by_scheme = _observed_pools()
        response = self._pool.request(
            method,
            address,
            body=body,
            headers=dict(headers),
            timeout=urllib3().Timeout(total=timeout),
            retries=False,
            redirect=False,
            preload_content=False,
            decode_content=False,
        )
        is_complete = False
        try:
            data = _read_body(response)
            is_complete = True
            return HttpResponse(response.status, response.headers, data)
        finally:
            # A connection with unread bytes must not be used again.
            if is_complete:
                response.release_conn()
            else:
                response.close()

    @contextlib.contextmanager
    def _deadline(self, timeout: float) -> Iterator[Exchange]:
        """Register the request of this thread and cut it at its deadline."""
        exchange = Exchange()
        timer = threading.Timer(timeout, exchange.cut)
        timer.daemon = True
        with self._lock:
            self._in_progress.add(exchange)
        _thread.exchange = exchange
        timer.start()
        try:
            yield exchange
        finally:
            timer.cancel()
            exchange.finish()
            _thread.exchange = None
            with self._lock:
                self._in_progress.remove(exchange)


def urllib3() -> Any:
    """Return the library.

    Raises:
        ImportError: with the command that installs it.
    """
    try:
        import urllib3
    except ImportError as error:
        raise ImportError(
            'teachers behind a server need urllib3: pip install "instil[remote]"'
        ) from error
    return urllib3


@functools.cache
def _observed_pools() -> dict[str, Any]:
    """Return connection pools whose connections register with the exchange of their thread."""
    library = urllib3()

    def observed(pool: Any) -> Any:
        class Connection(pool.ConnectionCls):  # type: ignore[misc]
            def request(self, *arguments: Any, **options: Any) -> None:
                exchange = getattr(_thread, "exchange", None)
                if exchange is not None:
                    exchange.set_connection(self)
                super().request(*arguments, **options)
                # The socket may be new after the request.
                if exchange is not None:
                    exchange.set_connection(self)

        return type(pool.__name__, (pool,), {"ConnectionCls": Connection})

    return {
        "http": observed(library.HTTPConnectionPool),
        "https": observed(library.HTTPSConnectionPool),
    }


def _read_body(response: Any) -> bytes:
    encoding = (response.headers.get("Content-Encoding") or "identity").strip().lower()
    if encoding not in ("identity", "gzip", "x-gzip"):
        raise DecodingError(f"the encoding {encoding[:20]!r}, which was not requested")
    inflater = None if encoding == "identity" else zlib.decompressobj(zlib.MAX_WBITS | 16)
    data = bytearray()
    while block := response.read(BLOCK_BYTES, decode_content=False):
        try:
            # The bound keeps a small compressed body from filling the memory.
            data += block if inflater is None else inflater.decompress(block, MAX_BYTES + 1)
        except zlib.error as error:
            raise DecodingError("a damaged gzip stream") from error
        if len(data) > MAX_BYTES:
            raise ResponseTooLargeError(f"the response is larger than {MAX_BYTES // 2**20} MiB")
    if inflater is not None and data and not inflater.eof:
        raise DecodingError("a truncated gzip stream")
    return bytes(data)
