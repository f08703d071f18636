"""``ai-lab token``: where the server's token lies, and the address that opens the lab in a browser."""

from __future__ import annotations

from ai_lab.access import is_token_required, metrics_token_path, replace_token, token_for, token_place
from ai_lab.cli.address import find_address
from ai_lab.cli.door import say
from ai_lab.settings import Settings


def show_token(*, is_new: bool) -> int:
    """Print where the token is and the address with it, or put a new one in its place.

    Raises:
        TokenUnusable: it comes from a setting, where it has to be replaced.
    """
    settings = Settings.load()
    url = find_address(None).url
    token = replace_token(settings) if is_new else token_for(settings, url)
    if token is None:
        say(
            f"There is no token yet in {token_place(settings)}. The server makes one when it starts on another address "
            "than 127.0.0.1 or with --require-token; to make one now: ai-lab token --new"
        )
        return 1
    print(f"Token in  {token_place(settings)}")  # noqa: T201 - a command speaks to its terminal
    print(f"Open      {url}/#token={token}")  # noqa: T201 - shown on purpose, to whoever may read the file
    print(f"Metrics   {metrics_token_path(settings)}")  # noqa: T201 - for Prometheus: it reads metrics and health alone
    if not is_token_required(settings):
        say(
            "As the settings are, the server wants it only where it was started with --require-token or for another "
            "address than 127.0.0.1."
        )
    if is_new:
        say("The old one is gone. Start the server again: it knows the new one from then on.")
    return 0
