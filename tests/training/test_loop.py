"""The shared loop: what a kill must not change, which epoch is kept, and what micro-batches must not change."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tandemrec.errors import InputError
from tandemrec.recommender import FitReport
from tandemrec.training import Task, TrainingConfig, learning_rate_factor, train
from tandemrec.training.state import TrainingState


class Regression(Task[Tensor]):
    """Least squares with dropout; `scores` fakes the validation figures; `die_at` raises at the n-th loss."""

    def __init__(self, scores: Sequence[float] = (), micro: int = 1, dropout: float = 0.2, die_at: int = 0) -> None:
        torch.manual_seed(0)
        self.x, self.y = torch.randn(24, 3), torch.randn(24)
        self.module: nn.Module = nn.Sequential(nn.Dropout(dropout), nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
        self.scores, self.micro, self.die_at, self.losses, self.validations = list(scores), micro, die_at, 0, 0

    def steps(self, epoch: int) -> Sequence[Sequence[Tensor]]:
        order = torch.randperm(24, generator=torch.Generator().manual_seed(epoch))
        return [list(step.chunk(self.micro)) for step in order.split(8)]

    def weight(self, batch: Tensor) -> float:
        return len(batch)

    def loss(self, batch: Tensor) -> Tensor:
        self.losses += 1
        if self.losses == self.die_at:
            raise KeyboardInterrupt
        return ((self.run(self.x[batch])[:, 0] - self.y[batch]) ** 2).sum()

    def validate(self) -> dict[str, float]:
        self.validations += 1
        if self.scores:
            return {"score": self.scores[self.validations - 1]}
        return {"score": -float(((self.module(self.x)[:, 0] - self.y) ** 2).mean())}


def weights(task: Regression) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in task.module.parameters()]


def without_seconds(report: FitReport) -> list[dict[str, float]]:
    return [{key: value for key, value in row.items() if key != "seconds"} for row in report.curve]


@pytest.mark.parametrize("matrix_rate", [None, 0.02])
@pytest.mark.parametrize("die_at", [1, 2, 4, 7, 9])
def test_an_interrupted_run_ends_as_an_uninterrupted_one(
    tmp_path: Path, die_at: int, matrix_rate: float | None
) -> None:
    rates = {"learning_rate": 0.05, "matrix_learning_rate": matrix_rate, "warmup_steps": 2, "schedule": "cosine"}
    config = TrainingConfig.model_validate({"epochs": 3, "checkpoint_seconds": 0} | rates)
    whole = Regression()
    expected = train(whole, config, seed=5)
    with pytest.raises(KeyboardInterrupt):
        train(Regression(die_at=die_at), config, seed=5, workspace=tmp_path)
    resumed = Regression()
    report = train(resumed, config, seed=5, workspace=tmp_path)
    assert resumed.losses == 9 - (die_at - 1), "what was done is not done again"
    assert without_seconds(report) == without_seconds(expected)
    assert (report.best_epoch, report.best_value) == (expected.best_epoch, expected.best_value)
    for mine, theirs in zip(weights(resumed), weights(whole), strict=True):
        assert torch.equal(mine, theirs)


def test_a_kill_between_best_and_last_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = TrainingConfig(epochs=3, learning_rate=0.05)
    whole = Regression()
    train(whole, config, seed=5)
    write = TrainingState._write

    def dying(state: TrainingState, name: str, *rest: object) -> None:
        if name == "last" and state.epoch == 2:
            raise KeyboardInterrupt
        write(state, name, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(TrainingState, "_write", dying)
    with pytest.raises(KeyboardInterrupt):
        train(Regression(), config, seed=5, workspace=tmp_path)
    monkeypatch.setattr(TrainingState, "_write", write)
    resumed = Regression()
    train(resumed, config, seed=5, workspace=tmp_path)
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(weights(resumed), weights(whole), strict=True))


def test_the_best_epoch_is_kept_and_patience_stops() -> None:
    seen: list[list[Tensor]] = []

    class Watched(Regression):
        def validate(self) -> dict[str, float]:
            seen.append(weights(self))
            return super().validate()

    task = Watched(scores=[1, 3, 2, 3, 0, 9])
    report = train(task, TrainingConfig(epochs=6, patience=3), seed=1)
    assert (report.best_epoch, report.best_value, report.epochs) == (2, 3, 5), "a tie is no improvement"
    assert all(torch.equal(mine, best) for mine, best in zip(weights(task), seen[1], strict=True))


def test_the_last_epoch_is_always_validated() -> None:
    report = train(Regression(), TrainingConfig(epochs=5, validate_every=3), seed=1)
    assert [row["epoch"] for row in report.curve] == [3, 5]


def test_micro_batches_add_up_to_the_batch() -> None:
    ends = []
    for micro in (1, 3):
        task = Regression(micro=micro, dropout=0.0)
        train(task, TrainingConfig(epochs=2, learning_rate=0.05), seed=1)
        ends.append(weights(task))
    for one, several in zip(*ends, strict=True):
        torch.testing.assert_close(one, several, rtol=1e-4, atol=1e-6)


def test_schedules_by_hand() -> None:
    warm = TrainingConfig(warmup_steps=4, schedule="linear")
    assert [learning_rate_factor(warm, step, 8) for step in range(8)] == [0.25, 0.5, 0.75, 1, 1, 0.75, 0.5, 0.25]
    cosine = TrainingConfig(schedule="cosine")
    assert [learning_rate_factor(cosine, step, 4) for step in (0, 2)] == pytest.approx([1, 0.5])
    assert learning_rate_factor(TrainingConfig(), 99, 100) == 1
    late = TrainingConfig(warmup_steps=2, schedule="linear", decay_share=0.5)
    assert [learning_rate_factor(late, step, 10) for step in range(10)] == [0.5, 1, 1, 1, 1, 1, 1, 0.75, 0.5, 0.25]
    with pytest.raises(ValueError, match="decay_share goes with schedule: linear or cosine, found constant"):
        TrainingConfig(decay_share=0.5)


def test_a_late_decay_may_go_on_from_a_constant_rate(tmp_path: Path) -> None:
    whole, parts = Regression(), Regression()
    late = TrainingConfig(epochs=8, learning_rate=0.05, schedule="linear", decay_share=0.25)
    train(whole, late, seed=1)
    train(parts, TrainingConfig(epochs=6, learning_rate=0.05), seed=1, workspace=tmp_path)
    constant = weights(parts)
    train(parts, late, seed=1, workspace=tmp_path)
    for one, other, before in zip(weights(whole), weights(parts), constant, strict=True):
        assert torch.equal(one, other)
        assert not torch.equal(one, before)


def test_gradients_are_clipped() -> None:
    # One Adam step moves every weight by the learning rate whatever the gradient's size, so look at the gradients.
    task = Regression(dropout=0.0)
    task.y = task.y * 1e4
    train(task, TrainingConfig(epochs=1, clip_norm=0.5), seed=1)
    norm = torch.stack([p.grad.norm() for p in task.module.parameters() if p.grad is not None]).norm()
    assert float(norm) == pytest.approx(0.5, rel=1e-3)


def test_mixed_precision_leaves_the_module_as_it_was() -> None:
    task = Regression(dropout=0.0)
    train(task, TrainingConfig(epochs=1, mixed_precision="bf16"), seed=1)
    plain = Regression(dropout=0.0)
    plain.module.load_state_dict(task.module.state_dict())
    assert torch.equal(task.module(task.x), plain.module(plain.x))
    assert {parameter.dtype for parameter in task.module.parameters()} == {torch.float32}
    train(task, TrainingConfig(epochs=1), seed=1)  # another precision in the same process


def test_metrics_are_written_as_json_lines(tmp_path: Path) -> None:
    train(Regression(), TrainingConfig(epochs=2, log_every=2), seed=1, workspace=tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(line["step"], line.get("epoch")) for line in lines] == [(2, None), (3, 1), (4, None), (6, None), (6, 2)]
    assert {"loss", "learning_rate"} <= lines[0].keys()
    assert {"loss", "score"} <= lines[1].keys()


def test_an_absent_tracker_is_named() -> None:
    with pytest.raises(InputError, match="found 'trackio', whose package is not installed"):
        train(Regression(), TrainingConfig(epochs=1, trackers=("trackio",)), seed=1)
