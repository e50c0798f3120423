"""What systems over other systems take: what those take to answer, and little of their own."""

from __future__ import annotations

from collections.abc import Iterable

from tandemrec.aggregation.best import BestConfig
from tandemrec.aggregation.injection import InjectionConfig
from tandemrec.aggregation.rankings import RankingAggregateConfig
from tandemrec.aggregation.ratings import RatingAggregateConfig
from tandemrec.data.examples import Examples
from tandemrec.work import NOTHING, Scene, Work, answer_work, fit_work, passes, ranking_work

REACHED = 0.25
"""Share of the validation examples whose target is among the base's first candidates, which alone choose weights: not
known before, and about so large for ten to twenty candidates."""


@fit_work.register
def _fit_rankings(config: RankingAggregateConfig, scene: Scene) -> Work | None:
    """The base answers the validation part, every language model what the base reaches of it."""
    listed = _answered([config.base], scene, scene.split.valid)
    asked = _answered(config.llm, scene, scene.split.valid)
    return None if listed is None or asked is None else listed + REACHED * asked


@fit_work.register(BestConfig)
@fit_work.register(RatingAggregateConfig)
def _fit(config: BestConfig | RatingAggregateConfig, scene: Scene) -> Work | None:
    """Everybody answers the validation part."""
    answered = _answered(config.partners(), scene, scene.split.valid)
    judged = ranking_work(len(scene.split.valid), scene.split.n_items)
    return None if answered is None else answered + len(config.partners()) * judged


@fit_work.register
def _fit_injection(config: InjectionConfig, scene: Scene) -> Work | None:
    """Every strength is judged on the validation part."""
    answered = _answered(config.partners(), scene, scene.split.valid)
    entries = len(scene.split.valid) * scene.split.n_items
    judged = ranking_work(len(scene.split.valid), scene.split.n_items) + passes(entries, 6)
    return None if answered is None else answered + len(config.strengths) * judged


@answer_work.register
def _answer_rankings(config: RankingAggregateConfig, scene: Scene, examples: Examples) -> Work | None:
    """The base, and the language model that is chosen."""
    listed, asked = _answered([config.base], scene, examples), _dearest(config.llm, scene, examples)
    return None if listed is None or asked is None else listed + asked


@answer_work.register(RatingAggregateConfig)
@answer_work.register(InjectionConfig)
def _answer(config: RatingAggregateConfig | InjectionConfig, scene: Scene, examples: Examples) -> Work | None:
    return _answered(config.partners(), scene, examples)


@answer_work.register
def _answer_best(config: BestConfig, scene: Scene, examples: Examples) -> Work | None:
    return _dearest(config.among, scene, examples)


def _dearest(names: Iterable[str], scene: Scene, examples: Examples) -> Work | None:
    """What one of several takes; which one is chosen is not known, so it is the dearest."""
    answers = [_answered([name], scene, examples) for name in names]
    known = [answer for answer in answers if answer is not None]
    return max(known, key=lambda work: work.flops + work.half_flops + work.bytes, default=None)


def _answered(names: Iterable[str], scene: Scene, examples: Examples) -> Work | None:
    total = NOTHING
    for name in names:
        system, its = scene.of(name)
        answer = answer_work(system, its, examples)
        if answer is None:
            return None
        total += answer
    return total
