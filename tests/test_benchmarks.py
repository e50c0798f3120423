"""Every benchmark that a page prints starts and knows the options that are printed with it; `make bench` runs them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PRINTED = sorted(
    {
        command
        for page in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), ROOT / "benchmarks" / "peers" / "README.md"]
        if page.exists()
        for command in re.findall(r"`python (benchmarks/\w+\.py[^`\n]*)`", page.read_text(encoding="utf-8"))
    }
)


@pytest.mark.parametrize("program", sorted({command.split()[0] for command in PRINTED}))
def test_a_printed_program_starts_and_knows_its_options(program: str) -> None:
    done = subprocess.run([sys.executable, ROOT / program, "--help"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    mine = [command.split() for command in PRINTED if command.split()[0] == program]
    options = {word for _, *words in mine for word in words if word.startswith("--")}
    assert options <= set(re.findall(r"--[\w-]+", done.stdout)), options


def test_pages_print_some() -> None:
    assert len(PRINTED) > 10
