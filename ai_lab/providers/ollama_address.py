"""Where Ollama is, from what its own programs read in ``OLLAMA_HOST``."""

from __future__ import annotations

from urllib.parse import urlsplit

#: The server's own, and what an address with a scheme has instead.
_PORT = 11434
_WEB_PORTS = {"http": 80, "https": 443}
#: What a server listens on when it listens everywhere, and where it is then reached.
_ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  # replaced, not bound


def ollama_address(host: str) -> str:
    """Return ``OLLAMA_HOST`` as a whole address; scheme, host and port of it may be missing.

    Raises:
        ValueError: it is none.
    """
    host = host.strip().strip("\"'")
    url = urlsplit(host if "://" in host else f"http://{host}")
    if url.scheme not in _WEB_PORTS:
        raise ValueError("neither http nor https")
    name = url.hostname or "127.0.0.1"
    name = _ANYWHERE.get(name, name)
    port = url.port or (_WEB_PORTS[url.scheme] if "://" in host else _PORT)
    path = url.path.strip("/")
    return f"{url.scheme}://{f'[{name}]' if ':' in name else name}:{port}{f'/{path}' if path else ''}"
