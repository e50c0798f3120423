"""What models over augmented data take: what their backbones take, on a little more data."""

from __future__ import annotations

from dataclasses import replace

from tandemrec.augmentation.augmented import AugmentedConfig
from tandemrec.augmentation.augmented_ratings import AugmentedRatingsConfig
from tandemrec.data.examples import Examples
from tandemrec.work import Scene, Work, answer_work, fit_work


@fit_work.register
def _fit(config: AugmentedConfig, scene: Scene) -> Work | None:
    """One entry more for every answer."""
    work, sequences = fit_work(config.backbone, scene), scene.split.sequences
    users = float((sequences.lengths > 0).sum())
    added = config.data.share * config.data.per_user * users / max(1.0, float(sequences.lengths.sum()))
    return None if work is None else replace(work * (1 + added), epochs=work.epochs)


@answer_work.register
def _answer(config: AugmentedConfig, scene: Scene, examples: Examples) -> Work | None:
    return answer_work(config.backbone, scene, examples)


@fit_work.register
def _fit_ratings(config: AugmentedRatingsConfig, scene: Scene) -> Work | None:
    """Without the columns that are to be added, whose values are not known yet."""
    return fit_work(_plain(config), scene)


@answer_work.register
def _answer_ratings(config: AugmentedRatingsConfig, scene: Scene, examples: Examples) -> Work | None:
    return answer_work(_plain(config), scene, examples)


def _plain(config: AugmentedRatingsConfig) -> AugmentedRatingsConfig:
    features = config.backbone.features
    items = {name: field for name, field in features.items.items() if name not in config.data.columns}
    return config.backbone.model_copy(update={"features": features.model_copy(update={"items": items})})  # type: ignore[return-value]
