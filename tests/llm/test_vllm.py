"""The server backend against a small server that answers as vLLM does, by our own search."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from tandemrec.cli import app
from tandemrec.errors import InputError
from tandemrec.llm.generate import GenerationConfig, generate, generate_beams
from tandemrec.llm.model import LanguageModel
from tandemrec.llm.vllm import Server, parity, sample_prompts

PROMPTS = [[5, 9, 7], [8, 6, 5, 40, 3, 2, 7], [12, 40, 41, 42], [20, 21]]
PLAIN = {"length_penalty": 0.0}


class FakeVLLM(ThreadingHTTPServer):
    def __init__(self, lm: LanguageModel) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.lm, self.models, self.requests = lm, ["toy"], list[dict[str, Any]]()
        self.spoil: Any = None  # changes an answer before it is sent
        self.shift = 0.0  # added to every log-probability

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: FakeVLLM

    def log_message(self, *args: object) -> None:
        pass

    def answer(self, content: Any, code: int = 200) -> None:
        body = content.encode() if isinstance(content, str) else json.dumps(content).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        assert self.path == "/v1/models"
        self.answer({"object": "list", "data": [{"id": name} for name in self.server.models]})

    def do_POST(self) -> None:
        assert self.path == "/v1/completions"
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append(asked | {"key": self.headers["Authorization"]})
        lm, choices = self.server.lm, list[dict[str, Any]]()
        if len(max(asked["prompt"], key=len)) > 100:
            self.answer({"error": {"message": "This model's maximum context length is 100 tokens."}}, 400)
            return
        config = GenerationConfig(beams=asked["n"], length_penalty=asked.get("length_penalty", 0.0))
        for prompt, beams in zip(
            asked["prompt"], generate_beams(lm, asked["prompt"], config, asked["max_tokens"]), strict=True
        ):
            for beam in beams:
                values = lm.label_log_probs([prompt], [list(beam.tokens)]) + self.server.shift / len(beam.tokens)
                ended = beam.tokens[-1] == lm.eos
                choice = {"index": len(choices), "token_ids": list(beam.tokens), "text": beam.text}
                choice |= {"finish_reason": "stop" if ended else "length"}
                choices.append(choice | {"logprobs": {"token_logprobs": values.tolist()}})
        answer = {"choices": choices[::-1]}
        self.answer(self.server.spoil(answer) if self.server.spoil else answer)


@pytest.fixture
def server(nano: LanguageModel) -> Iterator[FakeVLLM]:
    fake = FakeVLLM(nano)
    thread = threading.Thread(target=fake.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield fake
    fake.shutdown()
    thread.join()
    fake.server_close()


@pytest.mark.parametrize("beams", [1, 3])
def test_a_server_answers_behind_the_same_call(
    beams: int, server: FakeVLLM, nano: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_API_KEY", "secret")
    config = GenerationConfig(beams=beams, batch_size=3, **PLAIN)
    remote = Server.connect(server.url)
    found = generate_beams(nano, [*PROMPTS, PROMPTS[0]], config, 9, server=remote)
    wanted = generate_beams(nano, [*PROMPTS, PROMPTS[0]], config, 9)
    assert [[(b.tokens, b.text) for b in row] for row in found] == [[(b.tokens, b.text) for b in row] for row in wanted]
    scores = [[[beam.log_prob for beam in row] for row in rows] for rows in (found, wanted)]
    np.testing.assert_allclose(*scores, atol=1e-4)
    assert [len(request["prompt"]) for request in server.requests] == [3, 1]
    first = server.requests[0]
    assert first["key"] == "Bearer secret"
    assert (first["model"], first["temperature"], first["repetition_penalty"]) == ("toy", 0, 1)
    assert first.get("use_beam_search", False) == (beams > 1)
    assert generate(nano, PROMPTS, config, 9, server=remote) == [row[0].text for row in wanted[:-1]]


def test_eos_that_a_server_leaves_out_is_put_back(server: FakeVLLM, nano: LanguageModel) -> None:
    def spoil(answer: Any) -> Any:
        for choice in answer["choices"]:
            choice["token_ids"], choice["finish_reason"] = [60, 61], "stop"
        return answer

    server.spoil = spoil
    found = generate_beams(nano, PROMPTS[:1], GenerationConfig(beams=1), 5, server=Server.connect(server.url))
    assert found[0][0].tokens == (60, 61, nano.eos)


def test_finished_chunks_of_one_model_do_not_serve_another(
    server: FakeVLLM, nano: LanguageModel, tmp_path: Path
) -> None:
    server.models = ["one", "two"]
    config = GenerationConfig(beams=1)
    for name, requests in (("one", 1), ("one", 1), ("two", 2)):
        generate(nano, PROMPTS, config, 4, tmp_path, server=Server.connect(server.url, name))
        assert len(server.requests) == requests


@pytest.mark.parametrize(
    ("settings", "prompt", "message"),
    [
        ({"length_penalty": 1.0}, [5], "key 'length_penalty': found 1.0"),
        (PLAIN | {"early_stopping": True}, [5], "key 'early_stopping'"),
        (PLAIN, [5, -1], "prompts with item vectors cannot be sent"),
        (PLAIN, [5] * 101, r"refuses with 400 Bad Request.*maximum context length is 100 tokens"),
    ],
    ids=["length penalty", "early stopping", "slots", "refused"],
)
def test_what_a_server_cannot_do_is_said(
    settings: dict[str, Any], prompt: list[int], message: str, server: FakeVLLM, nano: LanguageModel
) -> None:
    config = GenerationConfig.model_validate({"beams": 2} | settings)
    with pytest.raises(InputError, match=message):
        generate(nano, [prompt], config, 4, server=Server.connect(server.url))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda answer: {"choices": answer["choices"][1:]}, "gave 1 answers to 1 prompts with 2 beams"),
        (lambda answer: {"choices": [{"index": 0, "text": "a"}]}, "without tokens and log-probabilities"),
        (lambda answer: "<html>", "does not answer in JSON"),
    ],
    ids=["too few", "no tokens", "no JSON"],
)
def test_strange_answers_are_refused(spoil: Any, message: str, server: FakeVLLM, nano: LanguageModel) -> None:
    server.spoil = spoil
    with pytest.raises(InputError, match=message):
        generate(nano, PROMPTS[:1], GenerationConfig(beams=2, **PLAIN), 4, server=Server.connect(server.url))


def test_connecting_names_what_is_wrong(server: FakeVLLM) -> None:
    with pytest.raises(InputError, match=r"no server at http://127.0.0.1:9/v1/models .*refused.*vllm serve"):
        Server.connect("http://127.0.0.1:9")
    with pytest.raises(InputError, match="'localhost' is no address"):
        Server.connect("localhost")
    with pytest.raises(InputError, match="does not serve 'other', it has: toy"):
        Server.connect(server.url, "other")
    server.models = ["one", "two"]
    with pytest.raises(InputError, match=r"serves 2 models \(one, two\)"):
        Server.connect(server.url)
    assert Server.connect(f"{server.url}/v1/", "two").url == f"{server.url}/v1"


def test_parity_holds_with_the_same_model_and_fails_with_another(
    server: FakeVLLM, nano: LanguageModel, tiny: Any
) -> None:
    remote = Server.connect(server.url)
    greedy, beams = parity(nano, remote, PROMPTS, beams=3, max_new_tokens=8)
    assert (greedy.beams, beams.beams) == (1, 3)
    assert greedy.holds
    assert beams.holds
    assert beams.equal == len(PROMPTS)
    assert beams.worst_error < 1e-4
    server.shift = 0.5
    assert parity(nano, remote, PROMPTS, beams=1)[0].worst_error == pytest.approx(0.5, abs=1e-3)
    server.lm = LanguageModel.load(tiny("llama"))
    other = parity(nano, remote, PROMPTS, beams=3, max_new_tokens=8)
    assert not any(row.holds for row in other)
    assert max(row.worst_gap for row in other) > 0.1


def test_the_command_compares_and_says_so(server: FakeVLLM, nano_folder: Path, tiny: Any) -> None:
    run = CliRunner().invoke
    done = run(app, ["llm", "parity", server.url, str(nano_folder), "--prompts", "3", "--beams", "2"])
    assert done.exit_code == 0, done.output
    assert "2 beams: 3 of 3 answers equal, 0 tied" in done.output
    server.lm = LanguageModel.load(tiny("gpt2"))
    done = run(app, ["llm", "parity", server.url, str(nano_folder), "--prompts", "3", "--beams", "2"])
    assert done.exit_code == 1, done.output


def test_prompts_of_the_sample(nano: LanguageModel) -> None:
    prompts = sample_prompts(nano, 5)
    assert len({tuple(prompt) for prompt in prompts}) == 5
    assert all(prompt[0] == nano.bos[0] for prompt in prompts)
