"""The chat client against a local server that fails in the ways that servers do."""

from __future__ import annotations

import json
import re
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

import tandemrec.experiment.foresight  # noqa: F401  (it knows what every system takes)
from tandemrec.conventional.direct.ease import EASEConfig
from tandemrec.conventional.rating.biases import BiasesConfig
from tandemrec.data.ratings import Pairs, target_ratings
from tandemrec.data.split import Split
from tandemrec.errors import InputError
from tandemrec.llm.chat import Account, Chat, ChatConfig
from tandemrec.llm.recommenders.ranker import Ranker, RankerConfig
from tandemrec.llm.recommenders.rater import Rater, RaterConfig
from tandemrec.llm.traffic import TRAFFIC
from tandemrec.recommender import FloatArray, RatingPredictor
from tandemrec.work import Scene, answer_work, fit_work
from tests.fixed import Fixed


class FakeChat(ThreadingHTTPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests = list[dict[str, Any]]()
        # Statuses, replies, "slow", "gone", "cut" or "hanging", one for each of the next requests.
        self.failures = list[Any]()
        self.retry_after = "0.2"
        self.answer: Callable[[str], str] = str.upper

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: FakeChat

    def log_message(self, *args: object) -> None:
        pass

    def do_POST(self) -> None:
        assert self.path == "/v1/chat/completions"
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append(asked | {"key": self.headers["Authorization"]})
        failure = self.server.failures.pop(0) if self.server.failures else None
        text = asked["messages"][0]["content"]
        reply: Any = {
            "choices": [{"message": {"role": "assistant", "content": self.server.answer(text)}}],
            "usage": {"prompt_tokens": 1000, "completion_tokens": 100},
        }
        if failure == "slow":
            time.sleep(0.6)
        elif failure == "gone":
            self.connection.close()
            return
        elif failure in ("cut", "hanging"):
            self.send_response(502)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"Bad")
            self.wfile.flush()
            time.sleep(0.6 if failure == "hanging" else 0)
            return
        code = failure if isinstance(failure, int) else 200
        body = failure.encode() if isinstance(failure, str) and failure != "slow" else json.dumps(reply).encode()
        try:
            self.send_response(code)
            self.send_header("Content-Length", str(len(body)))
            if code == 429:
                self.send_header("Retry-After", self.server.retry_after)
            self.end_headers()
            self.wfile.write(body)
        except (BrokenPipeError, ConnectionResetError):
            pass  # the client did not wait


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeChat]:
    # A port may be that of an earlier test's server, which was paid.
    monkeypatch.setattr("tandemrec.llm.chat.ACCOUNTS", defaultdict(Account))
    fake = FakeChat()
    thread = threading.Thread(target=fake.serve_forever, daemon=True)
    thread.start()
    yield fake
    fake.shutdown()
    fake.server_close()
    thread.join()


def chat(server: FakeChat, **settings: Any) -> Chat:
    return Chat(ChatConfig.model_validate({"url": server.url, "model": "toy", "backoff": 0.01} | settings))


def test_answers_in_order_each_different_prompt_once(server: FakeChat, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHAT_KEY", "secret")
    client = chat(server, key_variable="CHAT_KEY", input_price=2.0, output_price=10.0, max_tokens=7)
    prompts = [f"prompt {number % 5}" for number in range(12)]
    assert client.ask(prompts) == [prompt.upper() for prompt in prompts]
    assert client.ask(prompts[:2]) == ["PROMPT 0", "PROMPT 1"]
    assert len(server.requests) == client.attempts == 5
    first = server.requests[0]
    assert (first["model"], first["temperature"], first["max_tokens"]) == ("toy", 0.0, 7)
    assert first["key"] == "Bearer secret"
    assert client.cost == pytest.approx(5 * (1000 * 2 + 100 * 10) / 1e6)


@pytest.mark.parametrize("failure", [429, 500, 503, "slow", "gone", "cut", "hanging"])
def test_what_may_pass_is_tried_again(server: FakeChat, failure: Any) -> None:
    server.failures = [failure, failure]
    client = chat(server, timeout=0.3, retries=2)
    assert client.ask(["hello"]) == ["HELLO"]
    assert client.attempts == 3


def test_what_does_not_pass_is_said(server: FakeChat) -> None:
    for failures, sentence, attempts in (
        ([500] * 9, r"500 Internal Server Error .* in 3 attempts", 3),
        ([401], r"refuses with 401 Unauthorized \(is \$OPENAI_API_KEY set\?\)", 1),
        ([404], "refuses with 404", 1),
        (["no json"], "does not answer in JSON", 1),
        (['{"choices": []}'], "does not answer as an OpenAI-compatible chat does", 1),
    ):
        server.failures, client = list(failures), chat(server, retries=2)
        with pytest.raises(InputError, match=sentence):
            client.ask(["hello"])
        assert client.attempts == attempts
    server.failures.clear()
    with pytest.raises(InputError, match=r"no answer .* in 1 attempts"):
        Chat(ChatConfig(url="http://127.0.0.1:1", model="toy", retries=0)).ask(["hello"])


def test_answers_are_kept_for_later_clients(server: FakeChat, tmp_path: Path) -> None:
    assert chat(server, cache=tmp_path).ask(["one", "two\u2028lines"]) == ["ONE", "TWO\u2028LINES"]
    (file,) = tmp_path.iterdir()
    file.write_text(file.read_text() + '{"key": "cut sh', encoding="utf-8")
    later = chat(server, cache=tmp_path)
    assert later.ask(["two\u2028lines", "three", "one"]) == ["TWO\u2028LINES", "THREE", "ONE"]
    assert (later.attempts, later.prompt_tokens, later.cost) == (1, 1000, 0)
    assert chat(server, cache=tmp_path).ask(["three", "one"]) == ["THREE", "ONE"]
    assert len(server.requests) == 3
    for other in ({"temperature": 0.5}, {"max_tokens": 9}, {"model": "../a/b"}):  # other settings: another question
        assert chat(server, cache=tmp_path, **other).ask(["one"]) == ["ONE"]
    assert len(server.requests) == 6
    assert len(list(tmp_path.iterdir())) == 4


def test_several_answers_are_those_of_several_requests(server: FakeChat, tmp_path: Path) -> None:
    server.answer = lambda text: f"{text} {len(server.requests)}"
    client = chat(server, cache=tmp_path, parallel=1)
    assert client.ask(["a"]) == ["a 1"]
    assert client.draw(["a", "b", "a"], 3) == [["a 1", "a 2", "a 3"], ["b 4", "b 5", "b 6"], ["a 1", "a 2", "a 3"]]
    later = chat(server, cache=tmp_path)
    assert later.draw(["b", "a"], 2) == [["b 4", "b 5"], ["a 1", "a 2"]]
    assert later.ask(["b"]) == ["b 4"]
    assert (later.attempts, client.attempts) == (0, 6)
    assert later.draw(["b"], 4) == [["b 4", "b 5", "b 6", "b 7"]]


def test_answers_are_kept_in_the_store_unless_a_folder_is_named(
    server: FakeChat, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = chat(server), chat(server)  # at once, as clients of several systems are
    assert first.ask(["one"]) == second.ask(["one"]) == ["ONE"]
    assert first.ask(["two"]) == second.ask(["two"]) == ["TWO"]
    assert len(server.requests) == 2
    assert len(list((tmp_path / "store" / "chat").iterdir())) == 1
    monkeypatch.delenv("TANDEMREC_STORE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert chat(server).ask(["one"]) == ["ONE"]
    assert len(list((tmp_path / "cache" / "tandemrec" / "artifacts" / "chat").iterdir())) == 1


def test_nothing_is_asked_that_could_not_be_kept(server: FakeChat, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"key 'chat.cache': answers cannot be kept in .*file: File exists"):
        chat(server, cache=tmp_path / "file").ask(["one"])
    assert not server.requests


def test_paid_answers_survive_a_failure_of_the_next(server: FakeChat) -> None:
    server.failures = [None, 400]
    with pytest.raises(InputError, match="refuses with 400"):
        chat(server, parallel=1).ask(["one", "two"])
    later = chat(server)
    assert later.ask(["one", "two"]) == ["ONE", "TWO"]
    assert later.attempts == 1


@pytest.mark.parametrize("failure", [KeyboardInterrupt, OSError])
def test_nothing_is_asked_after_an_end_of_any_kind(
    server: FakeChat, monkeypatch: pytest.MonkeyPatch, failure: type[BaseException]
) -> None:
    def keep(*_: object) -> None:
        raise failure

    def answer(text: str) -> str:
        time.sleep(0.05)
        return text

    client, server.answer = chat(server, parallel=2), answer
    monkeypatch.setattr(client, "_keep", keep)
    with pytest.raises(failure):
        client.ask([str(number) for number in range(40)])
    assert len(server.requests) < 20


@pytest.mark.parametrize(
    ("usage", "counts"),
    [
        ('{"prompt_tokens": null, "completion_tokens": 7}', (0, 7)),
        ('{"prompt_tokens": 9}', (9, 0)),
        ("null", (0, 0)),
    ],
)
def test_tokens_that_are_not_counted_are_none(server: FakeChat, usage: str, counts: tuple[int, int]) -> None:
    server.failures = [f'{{"choices": [{{"message": {{"content": "told"}}}}], "usage": {usage}}}']
    client = chat(server)
    assert client.ask(["hello"]) == ["told"]
    assert (client.prompt_tokens, client.answer_tokens) == counts


@pytest.mark.parametrize("usage", ["", ', "usage": null', ', "usage": {"prompt_tokens": null}'])
def test_a_limit_of_the_cost_needs_a_server_that_counts(server: FakeChat, usage: str) -> None:
    server.failures = [f'{{"choices": [{{"message": {{"content": "told"}}}}]{usage}}}'] * 9
    with pytest.raises(InputError, match=r"key 'chat.most_cost': found 5, but http.* does not report the tokens"):
        chat(server, most_cost=5, parallel=1).ask(["hello"])
    assert chat(server).ask(["hello"]) == ["told"]  # it was paid
    assert len(server.requests) == 1


def test_the_first_process_asks_for_all(server: FakeChat, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tandemrec.llm.chat.process_rank", lambda: 1)
    monkeypatch.setattr("tandemrec.llm.chat.from_first", lambda own: [*own, ["told"]])
    assert chat(server).ask(["one"]) == ["told"]
    assert not server.requests


class Clock:
    """Time that passes only when it is slept."""

    def __init__(self) -> None:
        self.now, self.slept = 100.0, list[float]()

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(round(seconds, 6))
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    fake = Clock()
    monkeypatch.setattr("tandemrec.llm.chat.time", fake)
    return fake


def test_attempts_are_spaced(server: FakeChat, clock: Clock) -> None:
    chat(server, per_minute=600, parallel=1).ask([str(number) for number in range(4)])
    assert clock.slept == pytest.approx([0, 0.1, 0.1, 0.1])


def test_waits_double_unless_the_server_says_when_to_come_back(server: FakeChat, clock: Clock) -> None:
    server.failures = [500, 500, 429]
    chat(server, backoff=0.03).ask(["hello"])
    assert clock.slept == pytest.approx([0.03, 0.06, 0.2])


@pytest.mark.parametrize("retry_after", ["²", "-3", "nan", "inf", "Wed, 21 Oct 2015 07:28:00 GMT", ""])
def test_what_is_no_number_of_seconds_is_no_wait(server: FakeChat, clock: Clock, retry_after: str) -> None:
    server.failures, server.retry_after = [429], retry_after
    assert chat(server, backoff=0.03).ask(["hello"]) == ["HELLO"]
    assert clock.slept == pytest.approx([0.03])


def test_the_cost_has_a_limit(server: FakeChat) -> None:
    client = chat(server, input_price=1000.0, most_cost=1.5, parallel=1)
    with pytest.raises(InputError, match=r"key 'chat.most_cost': 2.0000 were spent, 1.5 are allowed"):
        client.ask(["a", "b", "c", "d"])
    assert len(server.requests) == 2
    # Other clients of a run, of another model too, have no limit of their own; what was paid can be had.
    again = chat(server, input_price=1000.0, most_cost=2.5, parallel=1, model="other")
    with pytest.raises(InputError, match=r"key 'chat.most_cost': 3.0000 were spent, 2.5 are allowed"):
        again.ask(["a", "b"])
    assert chat(server, input_price=1000.0, most_cost=1.5).ask(["b", "a"]) == ["B", "A"]
    assert chat(server, input_price=1000.0, most_cost=0.5, key_variable="OTHER").ask(["c"]) == ["C"]
    assert client.account.spent == 3.0


def test_a_ranker_may_ask_a_chat(server: FakeChat, split: Split, tmp_path: Path) -> None:
    base = Fixed(np.random.default_rng(6).normal(size=(60, 24)))
    base.user_vectors = torch.from_numpy(np.random.default_rng(7).normal(size=(60, 4)))
    config = RankerConfig.model_validate(
        {
            "base": "MF",
            "candidates": 4,
            "finetune": None,
            "checked": 3,
            "chat": {"url": server.url, "model": "toy", "cache": tmp_path / "cache"},
        }
    )
    model, before = Ranker(config, base), TRAFFIC.now()
    notes = model.fit(split).notes["answers"]
    assert notes["attempts"] == 3
    # The echo names every candidate; the first ones are those of the history, so the order is that of the prompt.
    few = split.test.take(slice(0, 5))
    assert sorted(model.rank(few, 4).items[0].tolist()) == sorted(base.rank(few, 4).items[0].tolist())
    assert config.chat is not None
    model.save(tmp_path / "model")
    again = Ranker.load(tmp_path / "model", base)
    np.testing.assert_array_equal(again.rank(few, 4).items, model.rank(few, 4).items)
    assert again.chat is not None
    assert again.chat.attempts == 0
    paced = config.model_copy(update={"chat": config.chat.model_copy(update={"per_minute": 120, "input_price": 3.0})})
    scene = Scene(split, {"MF": EASEConfig()})
    told, asked = fit_work(paced, scene), answer_work(paced, scene, few)
    assert told is not None
    assert asked is not None
    assert (told.requests, asked.requests, asked.paced, asked.unpaced) == (3, 5, 2.5, False)
    lengths = [len(request["messages"][0]["content"]) for request in server.requests]
    assert asked.read / 5 == pytest.approx(np.mean(lengths) / 4, rel=0.2)
    assert asked.fees == pytest.approx(asked.read * 3 / 1e6)
    unpaced = answer_work(config, scene, few)
    assert unpaced is not None
    assert (unpaced.unpaced, unpaced.paced) == (True, 0)
    assert TRAFFIC.read - before.read == 1000 * len(server.requests)  # as the server counts them
    assert TRAFFIC.written - before.written == 100 * len(server.requests)
    with pytest.raises(ValueError, match="chat goes with style: listwise and finetune: null"):
        RankerConfig.model_validate(config.model_dump() | {"style": "like"})


class Halves(RatingPredictor):
    """Predicts 2.5 for everybody."""

    def predict(self, pairs: Pairs) -> FloatArray:
        return np.full(len(pairs), 2.5, np.float32)

    fit = save = load = None  # type: ignore[assignment]


def test_a_rater_may_ask_a_chat(server: FakeChat, rated: Split, tmp_path: Path) -> None:
    chat = {"url": server.url, "model": "toy", "input_price": 3.0, "per_minute": 6000}
    settings = {"base": "Biases", "reading": "written", "finetune": None, "checked": 4, "chat": chat}
    config = RaterConfig.model_validate(settings | {"prompt": {"similar_user": False}})

    def answer(text: str) -> str:
        """The item's series as its rating; nothing that can be read of the fifth one."""
        assert "from 1 (worst) to 5 (best)" in text
        assert "Conventional Model Prediction: 2.5" in text
        (word,) = re.findall(r'Candidate Item: "(\w+) \d"', text)
        number = ["Star", "Dragon", "Robot", "Heart", "Night", "Ocean"].index(word) + 1
        return f"<think>a 1 or a 2?</think>{number}/5" if number < 5 else "hard to say, 17 or 23?"

    server.answer = answer
    model = Rater(config, Halves())
    notes = model.fit(rated).notes["answers"]
    truth, _ = target_ratings(rated, rated.test)
    asked = target_ratings(rated, rated.valid.take(slice(0, 4)))[0].pairs
    expected = (asked.item >= 16).mean()
    assert notes["unreadable_share"] == expected
    assert notes["attempts"] == len(server.requests) == 4
    assert notes["cost"] == pytest.approx(4 * 1000 * 3 / 1e6)
    series = truth.pairs.item // 4
    np.testing.assert_array_equal(model.predict(truth.pairs), np.where(series < 4, series + 1, 2.5))
    assert {0, 1, 2, 3, 4} <= set(series.tolist())
    model.save(tmp_path / "model")
    again, before = Rater.load(tmp_path / "model", Halves()), len(server.requests)
    np.testing.assert_array_equal(again.predict(truth.pairs), model.predict(truth.pairs))
    assert len(server.requests) == before

    scene, few = Scene(rated, {"Biases": BiasesConfig()}), rated.test.take(slice(0, 5))
    told, predicted = fit_work(config, scene), answer_work(config, scene, few)
    assert told is not None
    assert predicted is not None
    assert (told.requests, predicted.requests) == (4, 5)
    lengths = [len(request["messages"][0]["content"]) for request in server.requests]
    assert predicted.read / 5 == pytest.approx(np.mean(lengths) / 4, rel=0.2)
    assert predicted.fees == pytest.approx(predicted.read * 3 / 1e6)
    with pytest.raises(ValueError, match="chat goes with reading: written and finetune: null"):
        RaterConfig.model_validate(config.model_dump() | {"reading": "expected"})
    with pytest.raises(InputError, match="asks a chat endpoint has no language model that others could take"):
        Rater(RaterConfig(base="Biases", tuned="Rater"), Halves(), model)


def test_the_guides_example_is_a_recipe_of_models() -> None:
    guide = (Path(__file__).parents[2] / "docs" / "guide.md").read_text(encoding="utf-8")
    (block,) = (text for text in re.findall(r"```yaml\n(.*?)```", guide, re.DOTALL) if "chat:" in text)
    config = RankerConfig.model_validate(yaml.safe_load(block)["models"]["MF asked"])
    assert config.chat is not None
    assert None not in (config.chat.most_cost, config.chat.input_price, config.chat.output_price)
    assert config.chat.key_variable in guide
