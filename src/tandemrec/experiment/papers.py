"""The experiments of the papers: which recipe repeats which table or figure, at which size, and what is claimed there.

The index is the folder `papers` of the package, one YAML file a paper. An experiment is a bundled recipe and what is
changed in it, so that it needs no copy of the recipe at every size.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from functools import cache
from importlib import resources
from typing import Any, Literal, Self, get_args

from pydantic import Field, ValidationError, model_validator

from tandemrec.errors import InputError
from tandemrec.experiment.bundled import read_recipe
from tandemrec.experiment.fine_tunings import effort
from tandemrec.experiment.recipe import Recipe, explain, load_recipe, parse_yaml
from tandemrec.experiment.variation import changed, merged, reduced
from tandemrec.recommender import Config

Scale = Literal["full", "scaled", "smoke"]
SCALES: tuple[Scale, ...] = get_args(Scale)

SHARED = "shared"
"""Key of a paper's file that holds nothing but YAML anchors."""


class Better(Config):
    """A system is better than another one, by a paired test over users and, where there are several, training seeds."""

    better: str
    """The system that is to win."""

    than: str
    """The system that is to lose."""


class Cheaper(Config):
    """Training a system, all that it builds on included, takes less time than training another one."""

    cheaper: str
    """The system that is to take less."""

    than: str
    """The system that is to take more."""


class Easier(Config):
    """A teacher's own answers are easier to learn than the real ones: losses of the first epochs of both."""

    easier: str
    """The student that learns the teacher's answers."""

    ratio: float | None = Field(None, gt=0)
    """Loss on own answers over loss on real ones in the paper."""


Claim = Better | Cheaper | Easier


class Size(Config):
    """What a recipe becomes at one size."""

    change: dict[str, Any] = Field(default_factory=dict)
    """Merged into the recipe, see `variation.changed`."""

    systems: tuple[str, ...] | None = None
    """The systems that are kept, with all they build on; null: those of the experiment."""

    seeds: tuple[int, ...] = Field((42, 43, 44), min_length=1)
    """Training seeds."""

    differs: str = ""
    """What is not as in the paper."""


class Judgement(Config):
    """Another way to judge the systems of an experiment."""

    change: dict[str, Any]
    """Merged into the recipe at every size, see `variation.changed`."""

    differs: str
    """What it is."""


class Experiment(Config):
    """A table or figure, or a part of one."""

    shows: str
    """Which one."""

    asks: str
    """Its question."""

    recipe: str
    """The bundled recipe that it is made from."""

    systems: tuple[str, ...] | None = None
    """The systems of the recipe that take part, with all they build on; null: all."""

    parts: tuple[str, ...] = ()
    """Systems that others are made of, with `*` for any text: they are compared, and left out of the tables."""

    metrics: tuple[str, ...] = Field(min_length=1)
    """What is shown."""

    judged_by: str
    """The metric of the claims; it may be another one than the recipe's headline."""

    published: dict[str, tuple[float | None, ...]] = Field(default_factory=dict)
    """The paper's figures by the system's name here, one a metric; null where there is none, or an impossible one."""

    note: str = ""
    """What is to be known about the published figures."""

    claims: tuple[Claim, ...] = ()
    """What the paper says they show."""

    rivals: tuple[str, ...] = ()
    """Systems beside the paper's; every winner of a claim is tested against each of them, which is counted apart."""

    protocols: dict[str, Judgement] = Field(default_factory=dict)
    """Other protocols by name; in each of them it is another experiment, `NAME-PROTOCOL`."""

    modules: tuple[str, ...] = Field(min_length=1)
    """What computes it, as paths below the package."""

    tests: tuple[str, ...] = Field(min_length=1)
    """What checks that, as paths below `tests`."""

    full: Size
    """The paper's size."""

    scaled: Size = Size()
    """What a laptop without an accelerator can run."""

    smoke: Size
    """Seconds; shows that it runs, nothing else."""

    @model_validator(mode="after")
    def _a_figure_for_every_metric(self) -> Self:
        for system, figures in self.published.items():
            if len(figures) != len(self.metrics):
                raise ValueError(f"'{system}' has {len(figures)} published figures for {len(self.metrics)} metrics")
        return self

    def size(self, scale: Scale) -> Size:
        """What it is at a size."""
        found: Size = getattr(self, scale)
        return found

    @property
    def against_rivals(self) -> list[Better]:
        """Every winner of a claim against every rival."""
        winners = dict.fromkeys(claim.better for claim in self.claims if isinstance(claim, Better))
        return [Better(better=winner, than=rival) for winner in winners for rival in self.rivals]

    def in_protocol(self, protocol: str) -> Experiment:
        """The experiment that it is in another protocol."""
        other = self.protocols[protocol]
        new: dict[str, Any] = {"shows": f"{self.shows}, {protocol} protocol", "protocols": {}}
        for scale in SCALES:
            size = self.size(scale)
            differs = f"{size.differs} {other.differs}".strip()
            new[scale] = size.model_copy(update={"change": merged(size.change, other.change), "differs": differs})
        return self.model_copy(update=new)


class Paper(Config):
    """A paper and its experiments."""

    title: str
    """Its name."""

    reference: str
    """Authors and where it was published."""

    names: dict[str, str] = Field(default_factory=dict)
    """Parts of systems' names, and what they mean."""

    experiments: dict[str, Experiment] = Field(min_length=1)
    """Experiments by name, without the paper's."""

    def meaning(self, systems: Iterable[str]) -> dict[str, str]:
        """What the parts of these systems' names mean."""
        told = " ".join(systems)
        return {part: words for part, words in self.names.items() if part in told}


@cache
def papers() -> Mapping[str, Paper]:
    """All papers by name."""
    folder = resources.files("tandemrec") / "papers"
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".yaml")), key=lambda file: file.name)
    found = {}
    for file in files:
        tree = parse_yaml(file.read_text(encoding="utf-8"), file.name)
        tree.pop(SHARED, None)
        try:
            paper = Paper.model_validate(tree)
        except ValidationError as error:
            raise InputError(f"{file.name}: {explain(error, tree)}") from None
        found[file.name.removesuffix(".yaml")] = paper.model_copy(update={"experiments": _in_all_protocols(paper)})
    return found


def _in_all_protocols(paper: Paper) -> dict[str, Experiment]:
    found: dict[str, Experiment] = {}
    for name, one in paper.experiments.items():
        found |= {name: one} | {f"{name}-{protocol}": one.in_protocol(protocol) for protocol in one.protocols}
    return found


def experiments() -> dict[str, Experiment]:
    """All experiments by name, such as `soft/table-2-game`."""
    return {f"{paper}/{name}": one for paper, content in papers().items() for name, one in content.experiments.items()}


def find_experiment(name: str) -> Experiment:
    """The experiment of that name.

    Raises:
        InputError: if there is none.
    """
    known = experiments()
    if name not in known:
        near = get_close_matches(name, known, 3)
        hint = f"did you mean {', '.join(near)}?" if near else f"there are: {', '.join(known)}"
        raise InputError(f"there is no experiment '{name}'; {hint}")
    return known[name]


def elsewhere(name: str, scale: Scale) -> dict[str, str]:
    """Published systems that an experiment does not have → another one of the paper that has the system of the same
    figures: large tables are repeated in parts.
    """
    one, paper = find_experiment(name), name.partition("/")[0]
    mine = experiment_recipe(name, scale).models
    found: dict[str, str] = {}
    for other, experiment in experiments().items():
        theirs = [experiment.published.get(system) for system in experiment.systems or ()]
        if other.startswith(f"{paper}/") and experiment.metrics == one.metrics:
            for system, figures in one.published.items():
                if system not in mine and figures in theirs:
                    found.setdefault(system, other)
    return found


def experiment_recipe(name: str, scale: Scale, training_seed: int | None = None) -> Recipe:
    """The recipe of an experiment at a size; nothing of its data need be there.

    Raises:
        InputError: if there is no such experiment.
    """
    experiment = find_experiment(name)
    size = experiment.size(scale)
    tree = changed(parse_yaml(read_recipe(experiment.recipe), experiment.recipe), size.change)
    tree |= {"name": f"{name.replace('/', '-')}-{scale}", "description": experiment.asks, "tune": None}
    kept = reduced(tree, size.systems or experiment.systems)
    return load_recipe(kept if training_seed is None else kept | {"training_seed": training_seed})


def described() -> list[dict[str, str]]:
    """All experiments as rows of texts: name, what it shows, recipe, and what it trains when scaled and in full."""
    return [
        {
            "experiment": name,
            "shows": f"{papers()[name.partition('/')[0]].title}, {one.shows}",
            "recipe": one.recipe,
            **{scale: effort(experiment_recipe(name, scale)) for scale in ("scaled", "full")},
        }
        for name, one in experiments().items()
    ]


def read_scale(text: str) -> Scale:
    """The size of that name.

    Raises:
        InputError: if there is none.
    """
    for scale in SCALES:
        if text == scale:
            return scale
    raise InputError(f"--scale: found '{text}', expected one of {', '.join(SCALES)}")


def read_seeds(text: str | None) -> list[int] | None:
    """Whole numbers between commas; None for None.

    Raises:
        InputError: if there is anything else.
    """
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",")]
    wrong = next((part for part in parts if not part.isdecimal()), None)
    if wrong is not None:
        raise InputError(f"--seeds: found '{wrong}', expected whole numbers between commas, such as 42,43")
    return [int(part) for part in parts]
