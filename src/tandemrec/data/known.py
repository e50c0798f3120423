"""Known public data sets: where they are published, under which terms, and the checksums their publishers give."""

from __future__ import annotations

from difflib import get_close_matches
from functools import cache

from pydantic import Field

from tandemrec.errors import InputError
from tandemrec.recommender import Config

_GROUPLENS = (
    "GroupLens usage licence: free for research; acknowledge GroupLens (F. M. Harper and J. A. Konstan, The MovieLens "
    "Datasets: History and Context, ACM TiiS 5(4), 2015); no endorsement may be implied; no commercial use and no "
    "redistribution without permission."
)
_MCAULEY = "The source states no licence: research use; reviews and item texts belong to their authors. Cite "
_AMAZON_CITATION = {
    "2014": "R. He, J. McAuley, WWW 2016, and J. McAuley, C. Targett, Q. Shi, A. van den Hengel, SIGIR 2015.",
    "2018": "J. Ni, J. Li, J. McAuley, EMNLP 2019.",
    "2023": "Y. Hou, J. Li, Z. He, A. Yan, X. Chen, J. McAuley, arXiv 2403.03952.",
}
_AMAZON_FILES = {
    "2014": (
        "https://snap.stanford.edu/data/amazon/productGraph/categoryFiles/reviews_{}_5.json.gz",
        "https://snap.stanford.edu/data/amazon/productGraph/categoryFiles/meta_{}.json.gz",
    ),
    "2018": (
        "https://mcauleylab.ucsd.edu/public_datasets/data/amazon_v2/categoryFilesSmall/{}_5.json.gz",
        "https://mcauleylab.ucsd.edu/public_datasets/data/amazon_v2/metaFiles2/meta_{}.json.gz",
    ),
    "2023": (
        "https://mcauleylab.ucsd.edu/public_datasets/data/amazon_2023/benchmark/5core/rating_only/{}.csv.gz",
        "https://mcauleylab.ucsd.edu/public_datasets/data/amazon_2023/raw/meta_categories/meta_{}.jsonl.gz",
    ),
}
_AMAZON_PAGES = {
    "2014": "https://cseweb.ucsd.edu/~jmcauley/datasets/amazon/links.html",
    "2018": "https://cseweb.ucsd.edu/~jmcauley/datasets/amazon_v2/",
    "2023": "https://amazon-reviews-2023.github.io/",
}
_EVERY_YEAR = (
    "Automotive Books CDs_and_Vinyl Cell_Phones_and_Accessories Clothing_Shoes_and_Jewelry Digital_Music Electronics "
    "Grocery_and_Gourmet_Food Home_and_Kitchen Kindle_Store Movies_and_TV Musical_Instruments Office_Products "
    "Patio_Lawn_and_Garden Pet_Supplies Sports_and_Outdoors Tools_and_Home_Improvement Toys_and_Games Video_Games "
)
_AMAZON_CATEGORIES = {
    "2014": _EVERY_YEAR + "Amazon_Instant_Video Apps_for_Android Baby Beauty Health_and_Personal_Care",
    "2018": _EVERY_YEAR + "AMAZON_FASHION All_Beauty Appliances Arts_Crafts_and_Sewing Gift_Cards "
    "Industrial_and_Scientific Luxury_Beauty Magazine_Subscriptions Prime_Pantry Software",
    "2023": _EVERY_YEAR + "All_Beauty Amazon_Fashion Appliances Arts_Crafts_and_Sewing Baby_Products "
    "Beauty_and_Personal_Care Gift_Cards Handmade_Products Health_and_Household Health_and_Personal_Care "
    "Industrial_and_Scientific Magazine_Subscriptions Software Subscription_Boxes",
}


class KnownFile(Config):
    """One file to download; a `.zip` is unpacked, anything else kept as it is."""

    url: str
    """Where it is published."""

    md5: str | None = Field(None, pattern="^[0-9a-f]{32}$")
    """MD5 that the publisher gives; null: none is published."""

    @property
    def name(self) -> str:
        """Name of the file."""
        return self.url.rpartition("/")[2]


class KnownSource(Config):
    """A public data set that can be downloaded."""

    name: str
    """Name, also that of its folder below the data folder."""

    title: str
    """What it is."""

    licence: str
    """Terms of use and what to cite."""

    page: str
    """Where its publisher describes it."""

    files: tuple[KnownFile, ...] = Field(min_length=1)
    """What is downloaded."""

    megabytes: int | None = Field(None, gt=0)
    """Size of the download, about; null: unknown."""

    recipe: dict[str, str]
    """The `data` section of a recipe that reads it."""


def known_source(name: str) -> KnownSource:
    """The known source of that name.

    Raises:
        InputError: if there is none, with the nearest names or all groups of names.
    """
    known = known_sources()
    for source in known:
        if source.name == name:
            return source
    names = [source.name for source in known]
    near = get_close_matches(name, names, 3)
    short = [other for other in names if not other.startswith("amazon-")]
    groups = ", ".join([*short, *(f"amazon-{year}-CATEGORY" for year in _AMAZON_FILES)])
    hint = f"did you mean {', '.join(near)}?" if near else f"known are {groups}"
    raise InputError(f"there is no known data set '{name}'; {hint}")


@cache
def known_sources() -> tuple[KnownSource, ...]:
    """All known sources: MovieLens, Book-Crossing, MicroLens, Steam, then Amazon by year and category."""
    return (*_movielens(), *_others(), *_amazon())


def _movielens() -> list[KnownSource]:
    editions = (
        ("ml-100k", "MovieLens 100K (1998)", "0e33842e24a9c977be4e0107933c0723", 5),
        ("ml-1m", "MovieLens 1M (2003)", "c4d9eecfca2ab87c1945afe126590906", 6),
        ("ml-10m", "MovieLens 10M (2009)", "ce571fd55effeba0271552578f2648bd", 66),
        ("ml-20m", "MovieLens 20M (2016)", "cd245b17a1ae2cc31bb14903e1204af3", 199),
        ("ml-25m", "MovieLens 25M (2019)", "6b51fb2759a8657d3bfcbfc42b592ada", 262),
        ("ml-32m", "MovieLens 32M (2023)", "d472be332d4daa821edc399621853b57", 239),
        ("ml-latest-small", "MovieLens latest-small (changes over time)", None, 1),
        ("ml-latest", "MovieLens latest (changes over time)", None, 350),
    )
    return [
        KnownSource(
            name=name,
            title=title,
            licence=_GROUPLENS,
            page="https://grouplens.org/datasets/movielens/",
            files=(KnownFile(url=f"https://files.grouplens.org/datasets/movielens/{name}.zip", md5=md5),),
            megabytes=megabytes,
            recipe={"format": "movielens", "edition": name},
        )
        for name, title, md5, megabytes in editions
    ]


def _others() -> list[KnownSource]:
    microlens = "https://recsys.westlake.edu.cn/MicroLens-50k-Dataset/"
    steam = "https://mcauleylab.ucsd.edu/public_datasets/data/steam/"
    return [
        KnownSource(
            name="book-crossing",
            title="Book-Crossing (2004)",
            licence="Free for research use when acknowledged with: C.-N. Ziegler, S. M. McNee, J. A. Konstan, "
            "G. Lausen, Improving Recommendation Lists Through Topic Diversification, WWW 2005.",
            page="http://www2.informatik.uni-freiburg.de/~cziegler/BX/",
            files=(KnownFile(url="http://www2.informatik.uni-freiburg.de/~cziegler/BX/BX-CSV-Dump.zip"),),
            megabytes=26,
            recipe={"format": "book-crossing"},
        ),
        KnownSource(
            name="microlens-50k",
            title="MicroLens-50K, micro-video comments (2023)",
            licence="No licence file found: academic, non-commercial use; cite Y. Ni et al., A Content-Driven "
            "Micro-Video Recommendation Dataset at Scale, arXiv 2309.15379.",
            page=microlens,
            files=tuple(KnownFile(url=f"{microlens}MicroLens-50k_{part}.csv") for part in ("pairs", "titles")),
            recipe={"format": "microlens", "size": "50k"},
        ),
        KnownSource(
            name="steam",
            title="Steam reviews by Australian users, version 1 (2018)",
            licence=_MCAULEY
            + "W.-C. Kang, J. McAuley, ICDM 2018; M. Wan, J. McAuley, RecSys 2018; A. Pathak, K. Gupta, "
            "J. McAuley, SIGIR 2017.",
            page="https://cseweb.ucsd.edu/~jmcauley/datasets.html#steam_data",
            files=tuple(KnownFile(url=f"{steam}{part}.json.gz") for part in ("australian_user_reviews", "steam_games")),
            recipe={"format": "steam"},
        ),
    ]


def _amazon() -> list[KnownSource]:
    return [
        KnownSource(
            name=f"amazon-{year}-{category.lower().replace('_', '-')}",
            title=f"Amazon reviews {year}, {category.replace('_', ' ')}, 5-core",
            licence=_MCAULEY + _AMAZON_CITATION[year],
            page=_AMAZON_PAGES[year],
            files=tuple(KnownFile(url=url.format(category)) for url in urls),
            recipe={"format": "amazon", "edition": year, "category": category},
        )
        for year, urls in _AMAZON_FILES.items()
        for category in sorted(_AMAZON_CATEGORIES[year].split())
    ]
