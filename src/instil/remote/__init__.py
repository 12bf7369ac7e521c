"""Teachers behind an OpenAI-compatible server: their texts, and their likeliest tokens for given text."""

from instil.remote.connection import RequestRefusedError, ServerUnreachableError
from instil.remote.server import Completion, Server

__all__ = ["Completion", "RequestRefusedError", "Server", "ServerUnreachableError"]
