"""The HTML report: whole, self-contained, escaped, and drawn by a real browser where there is one."""

from __future__ import annotations

import copy
import json
import shutil
import struct
import subprocess
import zlib
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from tandemrec.evaluation.comparison import ComparisonConfig
from tandemrec.experiment.compare import compare
from tandemrec.experiment.recipe import load_recipe
from tandemrec.experiment.run import run
from tandemrec.report.html import run_page

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome", "headless_shell")
EVIL = "<script>alert('1')</script> & \"quoted\""


class Reader(HTMLParser):
    """Collects tags, attributes and texts; complains about tags that are not closed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in {"meta", "br"}:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append(data.strip())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with curves, and a comparison of it with a second training."""
    folder = tmp_path_factory.mktemp("reported")
    recipe = {
        "name": "reported",
        "description": "Which is best?",
        "data": {"format": "sample"},
        "split": {"protocol": "leave-one-out", "sample": {"test": 120}},
        "models": {
            "Popularity": {"model": "popularity"},
            "EASE": {"model": "ease"},
            "SASRec": {
                "model": "sasrec", "max_length": 5, "dim": 8, "blocks": 1,
                "training": {"epochs": 2, "patience": None, "clip_norm": None},
            },
            "Best": {"model": "best", "among": ["EASE", "SASRec"]},
        },
    }  # fmt: skip
    for seed in (1, 2):
        run(load_recipe(recipe, {"training_seed": seed}), folder / str(seed), store=folder / "store")
    compare([folder / "1", folder / "2"], folder / "both", price=2.0, config=ComparisonConfig(resamples=300))
    return folder


def read(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    results, card = (json.loads((folder / name).read_text()) for name in ("results.json", "run_card.json"))
    return results, card


@pytest.mark.parametrize("page", ["1/report.html", "both/compare.html"])
def test_pages_are_well_formed_and_need_nothing_else(folder: Path, page: str) -> None:
    text = (folder / page).read_text()
    found = Reader(text)
    assert found.open == []
    assert not {"script", "link", "img", "iframe"} & {tag for tag, _ in found.tags}
    for _, attributes in found.tags:
        assert not {"src", "href", "srcset"} & set(attributes)
        assert not [name for name in attributes if name.startswith("on")]
    assert "url(" not in text and "@import" not in text
    assert "prefers-color-scheme: dark" in text and "@media print" in text and "width=device-width" in text
    assert "nan" not in text.lower().replace("nano", "").split()
    assert all(attributes.get("aria-label") for tag, attributes in found.tags if tag == "svg")


def test_a_run_page_says_what_the_run_found(folder: Path) -> None:
    results, _ = read(folder / "1")
    texts = " ".join(Reader((folder / "1" / "report.html").read_text()).texts)
    headings = ["Leaderboard", "Accuracy and cost", "Where they are right", "Beyond accuracy", "How they learned"]
    for heading in [*headings, "Chosen on validation", "10 users", "Protocol and data", "Run card"]:
        assert heading in texts
    assert "Which is best?" in texts
    assert results["leaderboard"][0]["system"] + " has the best ndcg@10" in texts
    for row in results["leaderboard"]:
        figure = row["metrics"]["ndcg@10"]
        assert f"{figure['mean']:.4f} ± {figure['standard_error']:.4f}" in texts
    for user in results["examples"]:
        assert f"User {user['user']}" in texts
        assert all(title in texts for title in [*user["history"], *user["target"]])
        assert list(user["said"]) == ["Popularity", "EASE", "SASRec", "Best"]


def test_ten_users_are_what_the_systems_rank(folder: Path) -> None:
    """The place of the target and the first titles agree: a target at place 1 is the first title."""
    results, _ = read(folder / "1")
    said = [(user, words) for user in results["examples"] for words in user["said"].values()]
    assert len(said) == 40
    for user, words in said:
        for place, title in enumerate(words["titles"], 1):
            if title in user["target"]:
                assert words["place"] == place
        if words["place"] is not None and words["place"] <= 3 and words["place"] % 1 == 0:
            assert user["target"][0] in words["titles"]


def test_a_comparison_page_has_costs_in_money(folder: Path) -> None:
    texts = Reader((folder / "both" / "compare.html").read_text()).texts
    assert {"money", "money, 1,000 users", "seeds", "± seeds"} <= set(texts)


def test_a_comparison_page_tells_of_its_first_run(folder: Path) -> None:
    texts = Reader((folder / "both" / "compare.html").read_text()).texts
    assert {"How they learned", "Beyond accuracy", "10 users", "SASRec"} <= set(texts)
    assert any(text.startswith("What is told of single runs below is of ") for text in texts)


def test_whatever_a_text_says_it_is_a_text(folder: Path) -> None:
    results, card = (copy.deepcopy(part) for part in read(folder / "1"))
    text = json.dumps([results, card]).replace("SASRec", json.dumps(EVIL)[1:-1])
    results, card = json.loads(text)
    results["description"] = EVIL
    results["examples"][0]["history"] = [EVIL]
    results["examples"][0]["said"]["EASE"]["titles"] = [EVIL]
    card["hardware"]["processor"] = EVIL
    page = run_page(results, card)
    assert "<script" not in page
    assert "script" not in {tag for tag, _ in Reader(page).tags}
    assert EVIL in Reader(page).texts


def test_a_single_system_and_a_single_epoch_have_a_page_too(tmp_path: Path) -> None:
    recipe = {
        "name": "alone", "data": {"format": "sample"}, "split": {"protocol": "leave-one-out", "sample": {"test": 1}},
        "models": {"Popularity": {"model": "popularity"}},
    }  # fmt: skip
    run(load_recipe(recipe), tmp_path / "alone", store=tmp_path / "store")
    found = Reader((tmp_path / "alone" / "report.html").read_text())
    assert found.open == []
    assert any("nothing to compare it with" in text for text in found.texts)


@pytest.mark.parametrize(
    ("page", "width"), [("1/report.html", 1100), ("1/report.html", 390), ("both/compare.html", 390)]
)
def test_a_browser_draws_the_page(folder: Path, tmp_path: Path, page: str, width: int) -> None:
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip(f"no browser is installed (looked for {', '.join(BROWSERS)})")
    shot = tmp_path / "page.png"
    options = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        f"--user-data-dir={tmp_path / 'user'}",
    ]
    size = [f"--window-size={width},1400", f"--screenshot={shot}", (folder / page).as_uri()]
    done = subprocess.run([browser, *options, *size], capture_output=True, text=True, timeout=120, check=False)
    assert shot.is_file(), done.stderr[-2000:]
    shades = different_bytes(shot)
    assert shades > 40  # text, lines and colours, not a blank or an error page


def different_bytes(path: Path) -> int:
    """Different values in the unpacked rows of a PNG."""
    data, at, packed = path.read_bytes(), 8, b""
    while at < len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        if data[at + 4 : at + 8] == b"IDAT":
            packed += data[at + 8 : at + 8 + length]
        at += length + 12
    return len(set(zlib.decompress(packed)))
