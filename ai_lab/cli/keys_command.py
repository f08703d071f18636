"""``ai-lab keys``: its commands and options; what they do is in ``keys.py``, which is imported when one is called.

Exit codes: 0 done; 1 a key does not work, or a row of an import was refused; 2 the call was wrong or it failed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

keys = typer.Typer(
    help="API keys of model services, in the vault: add, list, test, rotate, remove, import.",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Server = Annotated[
    str | None,
    typer.Option(
        "--url", metavar="URL", help="AI Lab server. Default: that of the settings; where none runs, this process."
    ),
]
Service = Annotated[str, typer.Argument(metavar="SERVICE", help="openai, anthropic …", show_default=False)]
Label = Annotated[str | None, typer.Option(metavar="NAME", help="Which of several keys of the service.")]


@keys.command(context_settings={"ignore_unknown_options": True})
def add(
    service: Service,
    surplus: Annotated[list[str] | None, typer.Argument(hidden=True)] = None,
    *,
    label: Annotated[str, typer.Option(metavar="NAME", help="Tells several keys of the service apart.")] = "default",
    base_url: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Where the key is used, for a server of your own; it goes nowhere else."),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Store it though it looks like another service's key.")
    ] = False,
    no_test: Annotated[bool, typer.Option("--no-test", help="Do not ask the service whether it works.")] = False,
    stdin: Annotated[bool, typer.Option("--stdin", help="Read the key from standard input, for scripts.")] = False,
    url: Server = None,
) -> None:
    """Store a key: asked for without showing it, then tested.

    The same service and label again replaces the key. A server of your own: ai-lab keys add NAME --base-url http://…
    """
    from ai_lab.cli.keys import add_key  # noqa: PLC0415 - 0.5 s, not for --help

    code = add_key(
        service,
        label=label,
        base_url=base_url,
        force=force,
        is_tested=not no_test,
        from_stdin=stdin,
        surplus=surplus,
        url=url,
    )
    raise typer.Exit(code)


@keys.command("list")
def list_(
    *,
    json: Annotated[bool, typer.Option("--json", help="Print everything as JSON, for programs.")] = False,
    all_: Annotated[bool, typer.Option("--all", help="Removed keys too.")] = False,
    url: Server = None,
) -> None:
    """Show the keys: state, last test, last use. A key itself is never shown."""
    from ai_lab.cli.keys import list_keys  # noqa: PLC0415 - 0.5 s, not for --help

    raise typer.Exit(list_keys(as_json=json, with_revoked=all_, url=url))


@keys.command("test")
def check(
    service: Annotated[str | None, typer.Argument(metavar="[SERVICE]", help="Default: all keys.")] = None,
    *,
    label: Label = None,
    all_: Annotated[bool, typer.Option("--all", help="All keys of the service.")] = False,
    url: Server = None,
) -> None:
    """Ask the services whether the keys work; it costs nothing. Exit code 1: one does not, or it cannot be told."""
    from ai_lab.cli.keys import test_keys  # noqa: PLC0415 - 0.5 s, not for --help

    raise typer.Exit(test_keys(service, label=label, is_all=all_, url=url))


@keys.command()
def rotate(
    *,
    wait: Annotated[bool, typer.Option("--wait", help="Until all keys have moved.")] = False,
    url: Server = None,
) -> None:
    """Encrypt all stored keys with a new data key, while the lab goes on.

    It may be interrupted at any time and goes on by itself. The root key is changed by: ai-lab vault rekey
    """
    from ai_lab.cli.keys import rotate_keys  # noqa: PLC0415 - 0.5 s, not for --help

    raise typer.Exit(rotate_keys(is_awaited=wait, url=url))


@keys.command()
def remove(
    service: Service,
    *,
    label: Label = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    url: Server = None,
) -> None:
    """Erase a key for good; the list keeps that there was one."""
    from ai_lab.cli.keys import remove_key  # noqa: PLC0415 - 0.5 s, not for --help

    raise typer.Exit(remove_key(service, label=label, is_sure=yes, url=url))


@keys.command("import")
def import_(
    *,
    environment: Annotated[
        bool, typer.Option("--environment", help="OPENAI_API_KEY and the like; they also work without being stored.")
    ] = False,
    env_file: Annotated[Path | None, typer.Option(metavar="PATH", help="A .env file.")] = None,
    from_database: Annotated[
        Path | None, typer.Option(metavar="PATH", help="An ai_lab.db of the earlier AI-Lab.")
    ] = None,
    token_manager: Annotated[
        Path | None, typer.Option(metavar="PATH", help="The AI Token Manager's ~/.token_manager_config.json.")
    ] = None,
    key_file: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH", help="Its Fernet key. Default: encryption_key.key or .token_manager_key beside it."
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would come in.")] = False,
    url: Server = None,
) -> None:
    """Bring keys in from earlier tools, row by row; sources are never changed, and no stored key is replaced."""
    from ai_lab.cli.keys_import import import_keys  # noqa: PLC0415 - 0.5 s, not for --help

    code = import_keys(
        is_environment=environment,
        env_file=env_file,
        database=from_database,
        token_manager=token_manager,
        key_file=key_file,
        is_rehearsal=dry_run,
        url=url,
    )
    raise typer.Exit(code)
