"""``ai-lab vault``: its commands and options; what they do is in ``vault.py``, which is imported when one is called.

Exit codes: 0 all is well; 1 the vault is sealed, or its audit is not whole; 2 the call was wrong or it failed.
"""

from __future__ import annotations

from typing import Annotated

import typer

from ai_lab.cli.keys_command import Server

vault = typer.Typer(
    help="The vault of the API keys: its state, its root key, its audit.",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
Json = Annotated[bool, typer.Option("--json", help="Print it as JSON, for programs.")]


@vault.command()
def status(*, json: Json = False, url: Server = None) -> None:
    """Show whether the vault is open and where its root key comes from. Exit code 1: it is sealed."""
    from ai_lab.cli.vault import show_vault  # noqa: PLC0415 - 0.5 s, not for --help

    raise typer.Exit(show_vault(as_json=json, url=url))


@vault.command()
def rekey(*, url: Server = None) -> None:
    """Give the vault a new root key, where it lies in a file of its own or in the system's keyring.

    Where it comes from ENCRYPTION_KEY_FILE or ENCRYPTION_KEY, replace it there first; the command says how.
    """
    from ai_lab.cli.vault import change_root_key  # noqa: PLC0415 - 0.5 s, not for --help

    raise typer.Exit(change_root_key(url=url))


@vault.command()
def audit(
    *,
    verify: Annotated[bool, typer.Option("--verify", help="See that no entry was changed or taken out.")] = False,
    anchor: Annotated[
        str | None,
        typer.Option(
            metavar="SEQ:MAC", help="With --verify: a head that you noted; without one a cut end is not seen."
        ),
    ] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, metavar="N", help="Newest entries to show.")] = 20,
    json: Json = False,
    url: Server = None,
) -> None:
    """Show what was done with keys and by whom, or verify that this list is whole (exit code 1: it is not)."""
    from ai_lab.cli.vault import show_audit, verify_audit  # noqa: PLC0415 - 0.5 s, not for --help

    if verify or anchor:
        raise typer.Exit(verify_audit(anchor=anchor, as_json=json, url=url))
    raise typer.Exit(show_audit(limit=limit, as_json=json, url=url))


@vault.command()
def reset(
    *,
    i_know: Annotated[bool, typer.Option("--i-know", help="The root key is lost, and so are all stored keys.")] = False,
    url: Server = None,
) -> None:
    """Start a sealed vault anew whose root key is lost."""
    from ai_lab.cli.vault import start_vault_anew  # noqa: PLC0415 - 0.5 s, not for --help

    raise typer.Exit(start_vault_anew(is_known=i_know, url=url))
