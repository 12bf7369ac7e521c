"""Teachers behind an OpenAI-compatible server: their texts, and their likeliest tokens for given text."""

from instil.remote.connection import Refused, Unreachable
from instil.remote.server import Completion, Server

__all__ = ["Completion", "Refused", "Server", "Unreachable"]
