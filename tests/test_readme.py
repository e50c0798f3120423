"""What the README shows is there: its recipes are valid, its commands exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer
import yaml

from tandemrec.cli import app
from tandemrec.experiment.bundled import recipe_names
from tandemrec.experiment.recipe import load_recipe

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
MINIMAL = {"name": "readme", "split": {"protocol": "leave-one-out"}, "data": {"format": "sample"}}


@pytest.mark.parametrize("block", re.findall(r"```yaml\n(.*?)```", README, re.DOTALL))
def test_recipes_are_valid(block: str) -> None:
    assert load_recipe(MINIMAL | yaml.safe_load(block)).models


@pytest.mark.parametrize("line", sorted(set(re.findall(r"tandem ([a-z]+(?: [a-z]+)?)", README))))
def test_commands_exist(line: str) -> None:
    group = typer.main.get_command(app)
    first, _, second = line.partition(" ")
    found = group.commands[first]  # type: ignore[attr-defined]
    if hasattr(found, "commands") and second:
        assert second in found.commands


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`((?:soft/)?ml-[a-z0-9-]+)`", README))))
def test_named_recipes_ship_with_the_package(name: str) -> None:
    assert name in recipe_names()
