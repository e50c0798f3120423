"""Where data and models are looked for."""

from pathlib import Path

import pytest

from tandemrec.data.locations import data_folder, data_root, models_root
from tandemrec.errors import InputError


def test_variables_come_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TANDEMREC_DATA", str(tmp_path / "d"))
    monkeypatch.setenv("TANDEMREC_MODELS", str(tmp_path / "m"))
    assert data_root() == tmp_path / "d"
    assert models_root() == tmp_path / "m"


def test_default_is_the_cache_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("TANDEMREC_DATA", raising=False)
    monkeypatch.delenv("TANDEMREC_MODELS", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert data_root() == tmp_path / "tandemrec" / "data"
    assert models_root() == tmp_path / "tandemrec" / "models"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert data_root() == Path.home() / ".cache" / "tandemrec" / "data"


def test_relative_folder_is_below_the_root_then_the_working_directory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TANDEMREC_DATA", str(tmp_path / "root"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    assert data_folder("here") == tmp_path / "here"
    (tmp_path / "root" / "here").mkdir(parents=True)
    assert data_folder("here") == tmp_path / "root" / "here"
    assert data_folder(tmp_path / "here") == tmp_path / "here"


def test_missing_folder_says_where_it_looked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TANDEMREC_DATA", str(tmp_path))
    with pytest.raises(InputError, match=r"ml-9000.*tandem data get ml-9000.*TANDEMREC_DATA") as caught:
        data_folder("ml-9000")
    assert str(tmp_path / "ml-9000") in str(caught.value)
