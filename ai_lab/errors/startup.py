"""Why a program cannot start."""

from __future__ import annotations

from ai_lab.errors.requests import LabError


class StartupError(LabError):
    """The program cannot start; entry scripts print the detail on one line and exit with code 2."""

    status, code, title = 503, "startup_error", "Cannot start"


class InvalidSettings(StartupError):
    """A setting has a value that cannot be used."""

    code = "invalid_settings"


class DatabaseUnusable(StartupError):
    """The database cannot be opened."""

    code = "database_unusable"


class DatabaseDamaged(DatabaseUnusable):
    """The database file is not a whole SQLite database."""

    code = "database_damaged"


class DatabaseTooNew(DatabaseUnusable):
    """A newer version of AI Lab has migrated this database."""

    code = "database_too_new"


class EarlierDatabase(DatabaseUnusable):
    """The file belongs to the earlier AI-Lab and must be imported, not opened."""

    code = "earlier_database"


class DataDirUnusable(StartupError):
    """The data directory cannot be written."""

    code = "data_dir_unusable"


class AlreadyRunning(StartupError):
    """Another server holds this data directory or port."""

    code = "already_running"


class TokenUnusable(StartupError):
    """The access token cannot be used: too short, or readable by others."""

    code = "token_unusable"
