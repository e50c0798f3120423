"""What language models and conventional models make for each other, as stages: instructions, and data to add."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from tandemrec.augmentation.attributes import known_share, side_by_side
from tandemrec.augmentation.augmented import ADDED, AugmentedConfig
from tandemrec.augmentation.augmented_ratings import AugmentedRatingsConfig, ask_for_attributes
from tandemrec.augmentation.preferences import augment
from tandemrec.data.origins import earlier
from tandemrec.data.split import Split
from tandemrec.experiment.code_version import code_version
from tandemrec.experiment.models import Materials, code_rooms, folder_identity, load_recommender, make_recommender
from tandemrec.experiment.seeds import derive_seed
from tandemrec.experiment.store import Artifact, plain
from tandemrec.llm.instructions import Origin, write_instructions
from tandemrec.llm.recommenders.instructed import InstructedConfig
from tandemrec.recommender import Config
from tandemrec.work import NOTHING, Foresight

if TYPE_CHECKING:
    from tandemrec.experiment.stages import Stages

INSTRUCTIONS = "instructions.parquet"
"""What a ranker or rater is tuned on."""

ANSWERING = {"url", "model", "temperature", "max_tokens"}
"""Settings of a chat endpoint that its answers depend on; the others are about patience and price."""

OF_SPLIT = ("catalogue.json", "users.safetensors")
"""What a ranker or rater keeps of items and users, of which its language model by itself knows nothing."""


@dataclass
class Mutual:
    """Makes, over one split, what a model takes from models of the other kind; these must be trained.

    Attributes:
        stages: of the run.
        split: what may be trained on.
        content: hash of that.
        origins: what was made on the way: conventional models that were trained on earlier parts for the sake of their
            hints, and single attributes.
    """

    stages: Stages
    split: Split
    content: str
    origins: list[Artifact] = field(default_factory=list)

    def instructions(self, config: Config) -> Artifact | None:
        """What a ranker or rater is tuned on, with hints of models that have not seen the answers."""
        if not isinstance(config, InstructedConfig) or not config.needs_instructions():
            return None
        settings, similar = config.instructions, config.similar or config.base
        origins = [
            {name: self._origin(name, number, config) for name in dict.fromkeys((config.base, similar))}
            for number in range(settings.origins)
        ]
        # The artifact has all hints: systems that differ in those they show are tuned on the same instructions.
        prompt = config.prompt.model_copy(update={"similar_user": True, "prediction": True})
        seed, candidates = derive_seed(self.stages.recipe.seed, "instructions"), getattr(config, "candidates", 0)

        def make(draft: Path, work: Path) -> dict[str, Any]:
            asked = []
            for number, artifacts in enumerate(origins):
                known = earlier(self.split, number, settings.origins, settings.horizon)
                systems = {
                    n: load_recommender(self.stages.recipe.models[n], a.path, self.stages.load)
                    for n, a in artifacts.items()
                }
                vectors = config.neighbour_vectors(systems)
                if vectors is None:
                    vectors = getattr(systems[similar], "user_vectors", None)
                asked.append(Origin(known, known.test, systems[config.base], vectors))
            frame = write_instructions(asked, config.counts(), settings, prompt, candidates, seed)
            frame.write_parquet(draft / INSTRUCTIONS)
            return dict(frame.group_by("task").len().sort("task").iter_rows())

        depends = {
            "split": self.content,
            "config": plain(settings),
            "prompt": plain(prompt),
            "candidates": candidates,
            "origins": [{name: artifact.content for name, artifact in some.items()} for some in origins],
            "base": config.base,
            "similar": similar,
            "seed": seed,
            "code": code_version("llm/instructions.py", "llm/questions.py", "llm/neighbours.py", "data/origins.py"),
        }
        foresight = self.stages.foresights.instructions(config, self.split)
        return self.stages.get(f"instructions:{config.base}", depends, make, foresight)

    def augmented(self, config: Config) -> Artifact | None:
        """What a language model adds to the training data; the same for all backbones that ask for the same."""
        if isinstance(config, AugmentedRatingsConfig):
            return self._attributes(config)
        if not isinstance(config, AugmentedConfig):
            return None
        seed = derive_seed(self.stages.recipe.seed, f"augment:{config.data.method}")

        def make(draft: Path, work: Path) -> dict[str, Any]:
            frame = augment(self.split, config.data, self.stages.load_ranker(config.by), config.by, seed)
            frame.write_parquet(draft / ADDED)
            asked = round(config.data.share * int((self.split.user_counts > 0).sum())) * config.data.per_user
            return {"by": config.by, "asked": asked, "added": frame.height}

        depends = {
            "split": self.content,
            "judge": self.stages.partners(config),
            "config": plain(config.data),
            "seed": seed,
            "code": code_version("augmentation", "aggregation/utilities.py", "llm", "recommender.py"),
        }
        foresight = self.stages.foresights.augmentation(config, self.split)
        return self.stages.get(f"augment:{config.by}", depends, make, foresight)

    def _attributes(self, config: AugmentedRatingsConfig) -> Artifact:
        """Attributes of the items that a language model knows, those of all columns together."""
        columns = {name: self._attribute(name, config) for name in config.data.columns}
        self.origins += columns.values()

        def make(draft: Path, work: Path) -> dict[str, Any]:
            frame = side_by_side([pl.read_parquet(column.path / ADDED) for column in columns.values()])
            frame.write_parquet(draft / ADDED)
            return {"known_share": known_share(frame, config.data)}

        depends = {
            "columns": [[name, column.content] for name, column in columns.items()],
            "code": code_version("augmentation/attributes.py"),
        }
        return self.stages.get("augment:attributes", depends, make, Foresight(config, lambda _: NOTHING))

    def _attribute(self, name: str, config: AugmentedRatingsConfig) -> Artifact:
        """One attribute of the items; the same for all splits and all sets of columns.

        What it depends on is what the answers depend on, and no more: nobody is asked again about the same items.
        """
        data = config.data.model_copy(update={"columns": {name: config.data.columns[name]}})
        one = config.model_copy(update={"data": data})

        def make(draft: Path, work: Path) -> dict[str, Any]:
            judge = None if config.by is None else self.stages.load(config.by)
            frame = ask_for_attributes(self.split, one, judge, work)
            frame.write_parquet(draft / ADDED)
            return {"known_share": known_share(frame, data)}

        texts = self.split.dataset.items.select("item_id", "title").rows()
        depends = {
            "items": hashlib.sha256(json.dumps(texts).encode()).hexdigest(),
            "language_model": None if config.by is None else self._asked(config.by),
            "chat": None if config.chat is None else config.chat.model_dump(mode="json", include=ANSWERING),
            "config": plain(data),
            "code": code_version("augmentation/attributes.py", "augmentation/augmented_ratings.py", "llm"),
        }
        foresight = self.stages.foresights.attributes(one, self.split)
        return self.stages.get(f"augment:attributes:{name}", depends, make, foresight)

    def _asked(self, name: str) -> dict[str, Any]:
        """Identity of the language model of a ranker or rater, which may be another system's."""
        config = self.stages.recipe.models[name]
        while isinstance(config, InstructedConfig) and config.tuned is not None:
            name = config.tuned
            config = self.stages.recipe.models[name]
        base = self.stages.bases.get(name)
        return {
            "base": base.content if base else folder_identity(config),
            "tuned": self.stages.fitted[name].content_but(*OF_SPLIT),
        }

    def _origin(self, name: str, number: int, config: InstructedConfig) -> Artifact:
        """A conventional model trained on an earlier part of every history.

        One that is augmented takes what was added to the whole part: items that the user never met there, so that
        none of them is an answer.
        """
        settings, model = config.instructions, self.stages.recipe.models[name]
        added = self.augmented(model)
        seed = derive_seed(self.stages.recipe.seed, f"origin:{name}:{number}")

        def make(draft: Path, work: Path) -> dict[str, Any]:
            given = None if added is None else added.path / ADDED
            system = make_recommender(model, Materials(None, None, {}, self.stages.load, augmentation=given))
            known = earlier(self.split, number, settings.origins, settings.horizon)
            report = system.fit(known, seed=seed, workspace=work)
            system.save(draft)
            return report.model_dump(mode="json")

        depends = {
            "split": self.content,
            "config": plain(model),
            "place": [number, settings.origins, settings.horizon],
            "seed": seed,
            **({} if added is None else {"augmentation": added.content}),
            "code": code_version(*code_rooms(model), "data/origins.py"),
        }
        artifact = self.stages.get(f"origin:{name}", depends, make, self.stages.foresights.origin(name, self.split))
        self.origins.append(artifact)
        return artifact
