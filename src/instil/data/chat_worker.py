"""Process that encodes conversations: chunks from standard input, results to standard output."""

from __future__ import annotations

import pickle
import struct
import sys
from typing import IO, Any

from instil.data.chat_encoding import ChatEncoder

LENGTH = struct.Struct(">Q")


def send(stream: IO[bytes], value: Any) -> None:
    """Write an object with its length to a stream."""
    data = pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
    stream.write(LENGTH.pack(len(data)))
    stream.write(data)
    stream.flush()


def receive(stream: IO[bytes]) -> Any:
    """Read an object that ``send`` wrote; None at the end of the stream."""
    header = stream.read(LENGTH.size)
    if len(header) < LENGTH.size:
        return None
    return pickle.loads(stream.read(LENGTH.unpack(header)[0]))


def main() -> None:
    """Encode chunks until the input ends. The first object is the encoder."""
    source = sys.stdin.buffer
    target = sys.stdout.buffer
    # Output of libraries must not mix with the results.
    sys.stdout = sys.stderr
    encoder: ChatEncoder = receive(source)
    while (chunk := receive(source)) is not None:
        try:
            send(target, encoder.encode_chunk(chunk))
        except ValueError as error:
            send(target, error)


if __name__ == "__main__":
    main()
