"""Generation by a vLLM server, and the check that it writes what this package's own search writes.

vLLM pins other versions of torch and transformers, so it lives in an environment of its own and is spoken to over HTTP:
`vllm serve FOLDER --generation-config vllm`.
"""

from __future__ import annotations

import http.client
import json
import os
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tandemrec import __version__
from tandemrec.errors import InputError
from tandemrec.llm.chunks import Answers
from tandemrec.llm.generate import GenerationConfig, generate_beams
from tandemrec.llm.model import LanguageModel
from tandemrec.llm.prompts import PromptConfig, prompt_text

COMPACT = PromptConfig(template="compact")

KEY = "VLLM_API_KEY"
"""Environment variable with the server's key, if it asks for one."""


@dataclass(frozen=True)
class Server:
    """A vLLM server and the model on it that answers; see `connect`."""

    url: str
    model: str
    timeout: float = 600.0

    @classmethod
    def connect(cls, url: str, model: str | None = None, *, timeout: float = 600.0) -> Server:
        """Find a server.

        Args:
            url: its address, with or without `/v1`.
            model: name under which it serves the model or adapter; None: the only one it has.
            timeout: seconds without an answer after which it counts as gone.

        Raises:
            InputError: if there is no such server, or it does not serve that model.
        """
        if not url.startswith(("http://", "https://")):
            raise InputError(f"'{url}' is no address of a server, expected http://HOST:PORT")
        base = url.rstrip("/").removesuffix("/v1") + "/v1"
        answer = _call(f"{base}/models", None, timeout)
        try:
            names = [str(entry["id"]) for entry in answer["data"]]
        except (KeyError, TypeError):
            raise InputError(f"{base}/models does not list models as an OpenAI-compatible server does") from None
        if model is None and len(names) != 1:
            raise InputError(f"{base} serves {len(names)} models ({', '.join(names)}): say which one is meant")
        if model is not None and model not in names:
            raise InputError(f"{base} does not serve '{model}', it has: {', '.join(names)}")
        return cls(base, model or names[0], timeout)

    def beam_search(
        self, prompts: Sequence[list[int]], config: GenerationConfig, max_new_tokens: int, eos: int
    ) -> list[Answers]:
        """What `generate_beams` asks for.

        With several beams every answer that vLLM's search completes competes, not only those among the W best
        continuations: beams behind the best may differ from our own. More than 10 beams need a server that was started
        with `--max-logprobs` of twice as many.

        Raises:
            InputError: if the server fails, or the settings mean something else there.
        """
        _check(prompts, config)
        asked = {
            "model": self.model,
            "prompt": [list(prompt) for prompt in prompts],
            "max_tokens": max_new_tokens,
            "n": config.beams,
            "temperature": 0.0,
            "logprobs": 0,
            "return_token_ids": True,
            "include_stop_str_in_output": True,
            # What a checkpoint recommends is the server's default; it must not count.
            **{"repetition_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0},
            **({"use_beam_search": True, "length_penalty": 0.0} if config.beams > 1 else {}),
        }
        answer = _call(f"{self.url}/completions", asked, self.timeout)
        try:
            choices = [_answer(choice, eos) for choice in sorted(answer["choices"], key=lambda choice: choice["index"])]
        except (KeyError, TypeError):
            raise InputError(
                f"{self.url} answers without tokens and log-probabilities, expected vLLM 0.11 or later"
            ) from None
        if len(choices) != len(prompts) * config.beams:
            raise InputError(
                f"{self.url} gave {len(choices)} answers to {len(prompts)} prompts with {config.beams} beams each"
            )
        return [choices[start : start + config.beams] for start in range(0, len(choices), config.beams)]


@dataclass(frozen=True)
class Parity:
    """How a server's answers compare with our own, for one number of beams.

    Attributes:
        beams: how many; 1 is greedy search.
        prompts: how many were asked.
        equal: prompts with the same best answer, token by token.
        tied: further prompts whose two answers have scores within the tolerance, both by our model.
        worst_gap: the most by which the better of two different answers beats the other, in log-probability.
        worst_error: largest difference between the server's and our log-probability of the server's own answer.
    """

    beams: int
    prompts: int
    equal: int
    tied: int
    worst_gap: float
    worst_error: float

    @property
    def holds(self) -> bool:
        """Whether all answers are equal or tied."""
        return self.equal + self.tied == self.prompts


def parity(
    lm: LanguageModel,
    server: Server,
    prompts: Sequence[list[int]],
    *,
    beams: int = 4,
    max_new_tokens: int = 32,
    tolerance: float = 0.01,
) -> list[Parity]:
    """Compare a server with our own search: greedy, and with beams that score plain log-probability.

    Args:
        lm: the model that the server is said to serve.
        server: the server.
        prompts: token ids, BOS included.
        beams: of the second comparison.
        max_new_tokens: most tokens of an answer.
        tolerance: scores this near count as tied; half precision on the server needs more than float32.

    Raises:
        InputError: if the server fails.
    """
    found = []
    for width in dict.fromkeys((1, beams)):
        config = GenerationConfig(beams=width, length_penalty=0.0)
        own = [rows[0] for rows in generate_beams(lm, prompts, config, max_new_tokens)]
        theirs = [rows[0] for rows in generate_beams(lm, prompts, config, max_new_tokens, server=server)]
        forced = [lm.label_log_probs([p], [list(b.tokens)]).sum().item() for p, b in zip(prompts, theirs, strict=True)]
        differ = [a.tokens != b.tokens for a, b in zip(own, theirs, strict=True)]
        gaps = [abs(a.log_prob - score) for a, score, other in zip(own, forced, differ, strict=True) if other]
        errors = [abs(b.log_prob - score) for b, score in zip(theirs, forced, strict=True)]
        tied = sum(gap <= tolerance for gap in gaps)
        equal = len(prompts) - len(gaps)
        found.append(Parity(width, len(prompts), equal, tied, max(gaps, default=0.0), max(errors, default=0.0)))
    return found


def sample_prompts(lm: LanguageModel, n: int) -> list[list[int]]:
    """Prompts from histories of the bundled sample: three titles each, as short as small contexts need."""
    from tandemrec.data.sample import load_sample

    titles = load_sample().titles
    texts = [prompt_text([titles[(7 * row + i) % len(titles)] for i in range(3)], COMPACT) for row in range(n)]
    return [lm.bos + ids for ids in lm.tokenize(texts)]


def _check(prompts: Sequence[list[int]], config: GenerationConfig) -> None:
    if any(token < 0 for prompt in prompts for token in prompt):
        raise InputError("prompts with item vectors cannot be sent to a server, only tokens can")
    if config.beams > 1 and config.length_penalty != 0:
        raise InputError(
            f"key 'length_penalty': found {config.length_penalty}, but a vLLM server counts the prompt's tokens in the "
            "length of a beam; only 0 means the same there"
        )
    if config.beams > 1 and config.early_stopping:
        raise InputError("key 'early_stopping': a vLLM server has no such search, expected false")


def _answer(choice: dict[str, Any], eos: int) -> tuple[list[int], float]:
    tokens, values = list(choice["token_ids"]), choice["logprobs"]["token_logprobs"]
    if choice["finish_reason"] == "stop" and tokens[-1:] != [eos]:
        tokens.append(eos)
    return tokens, float(sum(values))


def _call(url: str, body: dict[str, Any] | None, timeout: float) -> Any:
    """One request: the JSON that is answered."""
    headers = {"User-Agent": f"tandemrec/{__version__}", "Content-Type": "application/json"}
    if os.environ.get(KEY):
        headers["Authorization"] = f"Bearer {os.environ[KEY]}"
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=timeout) as response:
            return json.loads(response.read())
    except urllib.error.HTTPError as error:
        reason = " ".join(error.read().decode(errors="replace").split())[:300]
        hint = f" (is ${KEY} set?)" if error.code == http.HTTPStatus.UNAUTHORIZED else ""
        raise InputError(f"{url} refuses with {error.code} {error.reason}{hint}: {reason}") from None
    except urllib.error.URLError as error:
        raise InputError(f"there is no server at {url} ({error.reason}); start one with `vllm serve MODEL`") from None
    except (TimeoutError, ConnectionError, http.client.HTTPException) as error:
        raise InputError(f"{url}: the connection broke ({str(error) or type(error).__name__})") from None
    except ValueError:
        raise InputError(f"{url} does not answer in JSON, expected an OpenAI-compatible server") from None
