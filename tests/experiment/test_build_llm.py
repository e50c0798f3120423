"""Where the language model of a recipe can go."""

from __future__ import annotations

from pathlib import Path

import pytest

from tandemrec.errors import InputError
from tandemrec.experiment.build_llm import build_llm
from tandemrec.experiment.recipe import load_recipe


def test_a_place_that_can_be_no_folder_is_refused_before_work(tmp_path: Path) -> None:
    recipe, file = load_recipe("sample"), tmp_path / "file"
    file.write_text("here")
    with pytest.raises(InputError, match="file is a file, expected a folder for a language model"):
        build_llm(recipe, file / "lm", store=tmp_path / "store")
    with pytest.raises(InputError, match="exists already; nothing was written"):
        build_llm(recipe, file, store=tmp_path / "store")
    assert not (tmp_path / "store").exists()
