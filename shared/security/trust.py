"""Whom our HTTP clients trust."""

import ssl
from collections.abc import Iterable
from functools import cache

import httpx


@cache
def trusted() -> ssl.SSLContext:
    """Read once for all clients of a process: it takes some 30 ms."""
    return httpx.create_ssl_context()


def trusted_for(urls: Iterable[str]) -> ssl.SSLContext | bool:
    """As `trusted`, and nothing where every address is plain HTTP: a command on its own machine need not read it."""
    return trusted() if any(url.startswith("https:") for url in urls) else False
