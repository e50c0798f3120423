"""The bundled sample: a synthetic catalogue and its interactions, and the seeded generator that made them.

The world of the sample: ten categories of films and games, franchises with numbered instalments whose titles name
franchise and category, and users whose taste drifts between categories, who tend to continue a franchise they have
begun and otherwise pick what is popular within their taste.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np
import polars as pl

from tandemrec.data.dataset import Dataset

SEED = 20240229
USERS, ITEMS = 1000, 500
START, SPAN = 1_640_995_200, 730 * 86_400

CATEGORIES = {
    "Space Opera": ("Star", "Nova", "Orbit", "Galaxy", "Comet", "Nebula"),
    "Fairy Tale": ("Enchanted", "Dragon", "Fairy", "Crown", "Unicorn", "Wizard"),
    "Detective": ("Murder", "Alibi", "Clue", "Inspector", "Suspect", "Cipher"),
    "Western": ("Saddle", "Canyon", "Sheriff", "Prairie", "Outlaw", "Mustang"),
    "Cooking": ("Kitchen", "Spice", "Oven", "Chef", "Recipe", "Pepper"),
    "Racing": ("Turbo", "Circuit", "Piston", "Drift", "Throttle", "Lap"),
    "Ghost Story": ("Haunted", "Phantom", "Crypt", "Midnight", "Shadow", "Whisper"),
    "Romance": ("Heart", "Kiss", "Wedding", "Letter", "Rose", "Promise"),
    "Ocean": ("Tide", "Reef", "Harbour", "Whale", "Anchor", "Lagoon"),
    "Robot": ("Iron", "Circuitry", "Android", "Gear", "Steel", "Voltage"),
}
PLACES = tuple(
    "Academy Alley Archive Avenue Bridge Castle City Club Coast Colony Corner Country Court Crossing District Empire "
    "Estate Factory Fortress Garden Gate Hall Hill Hotel House Island Junction Kingdom Lake Land Library Lodge Manor "
    "Market Mill Mountain Museum Palace Park Passage Peak Pier Plaza Quarter Ridge River Road Station Street Tower "
    "Valley Village Wharf Woods Yard".split()
)
SUBTITLES = tuple(
    "The Beginning|The Return|The Long Night|The Lost Map|The Second Chance|The Last Door|The Hidden Room|"
    "The Broken Seal|The Silent Hour|The Final Chapter".split("|")
)


@dataclass(frozen=True)
class _Catalogue:
    frame: pl.DataFrame
    category: np.ndarray
    successor: np.ndarray
    weight: np.ndarray


def generate(seed: int = SEED) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Interactions (user_id, item_id, rating, timestamp) and items (item_id, title, category, franchise, year)."""
    rng = np.random.default_rng(seed)
    catalogue = _catalogue(rng)
    events = [_history(user, catalogue, rng) for user in range(USERS)]
    interactions = pl.concat(events).sort("timestamp", maintain_order=True)
    small = {"user_id": pl.Int32, "item_id": pl.Int32, "rating": pl.Float32}
    return interactions.cast(small), catalogue.frame  # type: ignore[arg-type]


def write(directory: Path, seed: int = SEED) -> None:
    """Generate and write `interactions.parquet` and `items.parquet`, as committed."""
    directory.mkdir(parents=True, exist_ok=True)
    interactions, items = generate(seed)
    interactions = interactions.cast({"user_id": pl.Int32, "item_id": pl.Int32, "rating": pl.Float32})
    interactions.write_parquet(directory / "interactions.parquet", compression="zstd")
    items.write_parquet(directory / "items.parquet", compression="zstd")


def load_sample() -> Dataset:
    """The committed sample: 1,000 users, 500 items and 16,276 events, all of them invented."""
    folder = resources.files("tandemrec.data") / "sample"
    frames = []
    for name in ("interactions", "items"):
        with resources.as_file(folder / f"{name}.parquet") as path:
            frames.append(pl.read_parquet(path))
    return Dataset.from_frames(frames[0], frames[1], name="sample")


def _catalogue(rng: np.random.Generator) -> _Catalogue:
    """Franchises of one to eight instalments until the catalogue is full; titles are unique by construction."""
    names = list(CATEGORIES)
    rows: list[dict[str, object]] = []
    category: list[int] = []
    successor: list[int] = []
    taken: set[tuple[str, str]] = set()
    while len(rows) < ITEMS:
        c = int(rng.integers(len(names)))
        franchise = (str(rng.choice(CATEGORIES[names[c]])), str(rng.choice(PLACES)))
        if franchise in taken:
            continue
        taken.add(franchise)
        length = min(int(rng.integers(1, 9)), ITEMS - len(rows))
        subtitles = rng.permutation(len(SUBTITLES))
        year = int(rng.integers(1990, 2015))
        for part in range(length):
            name = " ".join(franchise)
            title = f"{name}: {names[c]}" if part == 0 else f"{name} {part + 1}: {SUBTITLES[subtitles[part]]}"
            rows.append(
                {"item_id": len(rows) + 1, "title": title, "category": names[c], "franchise": name, "year": year}
            )
            category.append(c)
            successor.append(len(rows) if part + 1 < length else -1)
            year += int(rng.integers(1, 3))
    popularity = rng.permutation(ITEMS) + 1.0
    return _Catalogue(pl.DataFrame(rows), np.array(category), np.array(successor), popularity**-0.9)


def _history(user: int, catalogue: _Catalogue, rng: np.random.Generator) -> pl.DataFrame:
    """One user: taste over two categories that drifts, sequels that follow what was begun, ratings that show both."""
    length = int(np.clip(rng.lognormal(2.7, 0.45), 6, 60))
    taste = rng.choice(len(CATEGORIES), 2, replace=False)
    waiting: list[int] = []
    seen = np.zeros(ITEMS, bool)
    items, ratings = [], []
    for _ in range(length):
        if rng.random() < 0.06:
            taste[int(rng.integers(2))] = int(rng.integers(len(CATEGORIES)))
        waiting = [item for item in waiting if not seen[item]]
        if waiting and rng.random() < 0.62:
            item = waiting.pop()
        else:
            liked = np.isin(catalogue.category, taste)
            weight = catalogue.weight * np.where(liked, 1.0, 0.08) * ~seen
            item = int(rng.choice(ITEMS, p=weight / weight.sum()))
        seen[item] = True
        if catalogue.successor[item] >= 0:
            waiting.append(int(catalogue.successor[item]))
        items.append(item + 1)
        base = 4.0 if catalogue.category[item] in taste else 2.9
        ratings.append(float(np.clip(np.round(rng.normal(base, 0.9)), 1, 5)))
    begin = START + rng.integers(0, SPAN * 2 // 3)
    gaps = rng.exponential(SPAN / 3 / length, length).astype(np.int64) + 60
    return pl.DataFrame(
        {
            "user_id": np.full(length, user + 1),
            "item_id": items,
            "rating": ratings,
            "timestamp": begin + np.cumsum(gaps),
        }
    )
