"""The HTML report: whole, self-contained, escaped, and drawn by a real browser where there is one."""

from __future__ import annotations

import copy
import json
import shutil
import struct
import subprocess
import zlib
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from tandemrec.evaluation.comparison import ComparisonConfig
from tandemrec.experiment.compare import compare
from tandemrec.experiment.recipe import load_recipe
from tandemrec.experiment.run import run
from tandemrec.report.charts import line_plot, scatter_plot
from tandemrec.report.cost import duration
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
    _, card = read(folder / "1")
    silent = run_page(results | {"description": ""}, card)
    assert (
        f"Which of {len(results['leaderboard'])} systems is best on {results['data']['name']}, and how sure" in silent
    )
    assert "predicted tokens" not in silent  # nothing here reads tokens
    assert "predicted memory" in silent
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


LOOK = """<script>
const cut = [], over = [];
for (const plot of document.querySelectorAll("svg")) {
  const frame = plot.getBoundingClientRect();
  const texts = [...plot.querySelectorAll("text")].map(text => [text.textContent, text.getBoundingClientRect()]);
  for (const [text, box] of texts) {
    const room = .25 * box.height;  // the frame of a text is higher than its letters
    if (box.left < frame.left - 1 || box.right > frame.right + 1) cut.push(text);
    if (box.top < frame.top - room || box.bottom > frame.bottom + room) cut.push(text);
  }
  texts.forEach(([text, one], place) => texts.slice(place + 1).forEach(([other, two]) => {
    const wide = Math.min(one.right, two.right) - Math.max(one.left, two.left);
    const high = Math.min(one.bottom, two.bottom) - Math.max(one.top, two.top);
    if (wide > 1 && high > .35 * Math.min(one.height, two.height)) over.push([text, other]);
  }));
}
const sideways = document.documentElement.scrollWidth - window.innerWidth;
document.body.textContent = JSON.stringify({cut, over, sideways});
</script>"""
"""Tells which texts of plots are cut or stand upon each other, and how far the page must be moved sideways."""


def browse(address: str, user: Path, width: int, *options: str) -> subprocess.CompletedProcess[str]:
    """A page in a window of that width."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip(f"no browser is installed (looked for {', '.join(BROWSERS)})")
    always = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--user-data-dir={user}"]
    command = [browser, *always, f"--window-size={width},1400", *options, address]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize(
    ("page", "width"), [("1/report.html", 1100), ("1/report.html", 390), ("both/compare.html", 390)]
)
def test_a_browser_draws_the_page(folder: Path, tmp_path: Path, page: str, width: int) -> None:
    shot = tmp_path / "page.png"
    done = browse((folder / page).as_uri(), tmp_path / "user", width, f"--screenshot={shot}")
    assert shot.is_file(), done.stderr[-2000:]
    shades = different_bytes(shot)
    assert shades > 40  # text, lines and colours, not a blank or an error page


def looked_at(page: str, folder: Path, width: int) -> dict[str, Any]:
    """What `LOOK` says of a page."""
    (folder / "looked-at.html").write_text(page.replace("</body>", f"{LOOK}</body>"), encoding="utf-8")
    done = browse((folder / "looked-at.html").as_uri(), folder / "user", width, "--dump-dom")
    found: dict[str, Any] = json.loads(unescape(done.stdout.partition("<body>")[2].partition("</body>")[0]))
    return found


@pytest.mark.parametrize("width", [1100, 500])
@pytest.mark.parametrize("page", ["1/report.html", "both/compare.html"])
def test_no_text_of_a_plot_is_cut_or_covered(folder: Path, tmp_path: Path, page: str, width: int) -> None:
    text = (folder / page).read_text(encoding="utf-8")
    assert looked_at(text, tmp_path, width) == {"cut": [], "over": [], "sideways": 0}


@pytest.mark.parametrize("width", [1100, 500])
def test_a_crowded_plot_can_be_read(folder: Path, tmp_path: Path, width: int) -> None:
    points = [(f"WMF+DA {place}", 900.0 + place % 5, 0.1 + place / 9000, place == 0) for place in range(24)]
    plots = [
        scatter_plot(points, "training", "ndcg@10", duration),
        line_plot(
            {f"SGL+DA {place}": [0.1, 0.2 * place] for place in range(8)}, ["1–2", "1,093–3,388"], "activity", "ndcg@10"
        ),
    ]
    page = (folder / "1/report.html").read_text(encoding="utf-8")
    head = page.partition("<body>")[0]
    assert looked_at(f"{head}<body>{plots[0]}{plots[1]}</body>", tmp_path, width) == {
        "cut": [],
        "over": [],
        "sideways": 0,
    }


def test_the_look_sees_what_is_cut_and_covered(tmp_path: Path) -> None:
    texts = ((50, 25, "once"), (51, 26, "twice"), (95, 45, "beyond"))
    plot = "".join(f'<text x="{x}" y="{y}">{text}</text>' for x, y, text in texts)
    page = f'<html><body><svg viewBox="0 0 100 50" width="300">{plot}</svg></body></html>'
    assert looked_at(page, tmp_path, 800) == {"cut": ["beyond"], "over": [["once", "twice"]], "sideways": 0}


def different_bytes(path: Path) -> int:
    """Different values in the unpacked rows of a PNG."""
    data, at, packed = path.read_bytes(), 8, b""
    while at < len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        if data[at + 4 : at + 8] == b"IDAT":
            packed += data[at + 8 : at + 8 + length]
        at += length + 12
    return len(set(zlib.decompress(packed)))
