from pathlib import Path

import pytest

from tests.importer.import_lab import ImportLab


@pytest.fixture
def lab(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> ImportLab:
    """Run against the test's own database and folder, whatever the machine's settings are."""
    source = tmp_path / "source"
    source.mkdir()
    (tmp_path / ".env").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATABASE_URL", database_url)
    return ImportLab(source, database_url, capsys)
