"""Every command that README and guide print is executed, or it is said here why not.

What would take minutes gets settings that make it short; nothing else of a command is changed.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import polars as pl
import pytest
import yaml

from tandemrec.cli import app
from tandemrec.data.sample import load_sample
from tandemrec.experiment.recipe import load_recipe

ROOT = Path(__file__).parents[1]
PAGES = ("README.md", "docs/guide.md", "docs/distributed.md", "docs/papers.md", "docs/benchmarks.md", "CONTRIBUTING.md")
RESULTS = ["docs/results.md", *sorted(f"docs/results/{page.name}" for page in (ROOT / "docs/results").glob("*.md"))]

SMALL = ["split.sample={train: 48, valid: 16, test: 40}"]
QUICK = ["models.SASRec.training.epochs=1", "models.SASRec.dim=8"]
NANO = ["lm.repeats=1", "lm.vocabulary=400", "lm.context=128", "lm.training.epochs=1"]
SHORT = {
    "tandem run sample": [
        *SMALL, "selection=null", "tune=null", "models={EASE: {model: ease}, Popularity: {model: popularity}}",
    ],
    "tandem run first.yaml": [
        *SMALL, *QUICK, *(f"models.BIGRec nano.{part}" for part in (*NANO, "lm.millions=0.05")),
    ],
    "tandem run mine.yaml": [*SMALL, *QUICK, "models.BIGRec.finetune.training.epochs=1"],
    "tandem llm build first.yaml": [f"models.BIGRec nano.{part}" for part in (*NANO, "lm.context=512")],
    "tandem select sample": [
        *SMALL, *QUICK, *(f"models.BIGRec nano.{part}" for part in (*NANO, "lm.millions=0.05")),
        "selection.budget=20", "selection.selectors={Random: {selector: random}}",
    ],
}  # fmt: skip
"""Beginning of a command → what it is given beside its own options."""

ELSEWHERE = {
    "make test": "is running",
    "make format": "changes files; `make test` checks them",
    "make docs": "changes files; tests/test_docs.py checks them",
    "make bench": "a quarter of an hour; tests/test_benchmarks.py starts every program",
    "tandem plan ml-1m": "needs MovieLens-1M; the guide plans a recipe of its own",
    "tandem plan --calibrate": "measures for seconds; tests/experiment/test_plan.py does it in less",
    "make demo": "`tandem run sample` is what it runs once the environment is there",
    "tandem run ml-1m": "needs MovieLens-1M; bundled recipes are checked in tests/experiment",
    "tandem data get ml-1m": "needs the network; tests/data/test_download.py downloads from a server of its own",
    "tandem reproduce soft/figure-2": "an experiment of a paper; tests/experiment/test_reproduce.py runs it",
    "tandem reproduce NAME": "any experiment",
    "tandem tune sample": "a search; tests/experiment/test_tune.py has one",
    "tandem llm parity": "needs a vLLM server; tests/llm/test_vllm.py has one that answers like it",
    "tandem export RUN": "needs a finished language model; tests/experiment/test_partners.py exports one",
    "torchrun": "several processes; tests/training/test_processes.py runs them",
    "accelerate launch": "several processes; tests/training/test_processes.py runs them",
}
"""Beginning of a command → why it is not executed here."""


def printed(page: str) -> list[str]:
    """Commands with arguments, in order: lines of blocks, and spans of running text."""
    text = (ROOT / page).read_text(encoding="utf-8")
    found = []
    for place, part in enumerate(text.split("```")):
        if place % 2:
            language, _, block = part.partition("\n")
            lines = block.splitlines() if language in {"", "sh"} else []
        else:
            lines = [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", part)]
        for line in lines:
            command = re.sub(r"\s+#.*", "", line).strip()
            if re.match(r"(tandem|torchrun|accelerate|make) ", command):
                found.append(command)
    return found


def named_only(command: str) -> bool:
    """A verb in running text without what it works on, such as `tandem llm build`."""
    return command in {
        "tandem plan",
        "tandem llm build",
        "tandem data show",
        "tandem data show dealrec/games",
        "tandem compare",
    }


def begins(command: str, table: dict) -> str | None:
    return next((start for start in table if command == start or command.startswith(f"{start} ")), None)


@pytest.fixture
def newcomer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the table, the recipe and the language model that the README speaks of."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TANDEMREC_DATA", str(tmp_path / "data"))
    data = load_sample()
    when = pl.from_epoch(pl.col("timestamp"), time_unit="s").dt.strftime("%Y-%m-%dT%H:%M:%S")
    codes = pl.DataFrame({"user": range(data.n_users), "customer": data.users["user_id"]}).cast({"user": pl.Int32})
    goods = pl.DataFrame({"item": range(data.n_items), "sku": data.items["item_id"]}).cast({"item": pl.Int32})
    events = data.interactions.join(codes, on="user").join(goods, on="item").with_columns(when=when)
    events.select("customer", "sku", "when").write_csv("events.csv")
    data.items.select(sku="item_id", product="title").write_csv("items.csv")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    own = next(block for block in re.findall(r"```yaml\n(.*?)```", readme, re.DOTALL) if "name: mine" in block)
    Path("mine.yaml").write_text(own, encoding="utf-8")
    assert yaml.safe_load(own)["models"]["BIGRec"]["lm"]["path"] == "./my-llama"
    return tmp_path


def execute(command: str) -> None:
    start = begins(command, SHORT)
    extra = [part for setting in SHORT[start] for part in ("--set", setting)] if start else []
    verb, *arguments = shlex.split(command)
    assert verb == "tandem"
    with pytest.raises(SystemExit) as left:
        app([*arguments, *extra])
    assert left.value.code == 0, command


def test_every_command_of_the_pages_works(newcomer: Path) -> None:
    guide, rest = printed("docs/guide.md"), [command for page in PAGES for command in printed(page)]
    commands = list(dict.fromkeys(command for command in [*guide, *rest] if not named_only(command)))
    assert len(commands) > 20
    done = []
    for command in commands:
        if begins(command, ELSEWHERE):
            continue
        if "mine.yaml" in command and not Path("my-llama").exists():
            Path("my-llama").symlink_to("first-lm")  # "your language model" is the one that the guide has built
        execute(command)
        done.append(command)
    assert len(done) > 15
    for name in (
        "demo-run/report.html",
        "runs/first/results.json",
        "first-compared/compare.html",
        "priced/compare.tex",
    ):
        assert (newcomer / name).is_file()


@pytest.mark.parametrize("page", RESULTS)
def test_every_command_of_results_is_known(page: str, tmp_path: Path) -> None:
    """What took hours is not done again: experiments write their recipes, and recipes are read."""
    commands = list(dict.fromkeys(printed(page)))
    assert commands
    for place, command in enumerate(commands):
        if command.startswith("tandem reproduce "):
            execute(f"{command} --recipe-only --out {tmp_path / str(place)}")
        else:
            assert command.startswith("tandem run ")
            load_recipe(*shlex.split(command)[2:])


def test_exceptions_are_still_printed_somewhere() -> None:
    commands = [command for page in PAGES for command in printed(page)]
    for start in (*ELSEWHERE, *SHORT):
        assert any(begins(command, {start: ""}) for command in commands), start
