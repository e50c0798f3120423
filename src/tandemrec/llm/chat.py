"""A client of any OpenAI-compatible chat endpoint: patient, paced, counted, and it never asks the same twice."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from pydantic import Field

from tandemrec import __version__
from tandemrec.errors import InputError
from tandemrec.llm.traffic import TRAFFIC
from tandemrec.recommender import Config

PASSING = {408, 409, 425, 429, 500, 502, 503, 504}
"""Statuses that may be gone when asked again."""

LONGEST_WAIT = 60.0
"""Most seconds between two attempts."""


class ChatConfig(Config):
    """Who is asked, how patiently, and what it may cost."""

    url: str = Field(pattern=r"^https?://")
    """Address of the server, with or without `/v1`."""

    model: str
    """Name under which the server has the model."""

    key_variable: str = "OPENAI_API_KEY"
    """Environment variable with the key, if the server asks for one; the key itself is kept nowhere."""

    temperature: float = Field(0.0, ge=0)
    """0 is greedy."""

    max_tokens: int = Field(512, ge=1)
    """Most tokens of an answer."""

    timeout: float = Field(60.0, gt=0)
    """Seconds without an answer after which an attempt has failed."""

    retries: int = Field(5, ge=0)
    """Further attempts after a failure that may pass: a limit, a fault of the server, a broken connection."""

    backoff: float = Field(1.0, ge=0)
    """Seconds before the second attempt, doubled for every further one; the server's `Retry-After` counts if longer."""

    per_minute: float | None = Field(None, gt=0)
    """Most attempts a minute, evenly spaced; null: as fast as the server answers."""

    parallel: int = Field(4, ge=1, le=256)
    """Questions that are open at once."""

    input_price: float = Field(0.0, ge=0)
    """Price of a million prompt tokens."""

    output_price: float = Field(0.0, ge=0)
    """Price of a million answer tokens."""

    most_cost: float | None = Field(None, gt=0)
    """No further question is asked once answers have cost this much; null: no limit."""

    cache: Path | None = None
    """Folder in which answers are kept and found again; null: for the life of the client."""


class Chat:
    """Answers prompts, each different one once.

    Attributes:
        config: the configuration.
        attempts: requests that were sent, failed ones included.
        prompt_tokens: tokens of answered prompts, as the server counts them.
        answer_tokens: tokens of answers.
    """

    def __init__(self, config: ChatConfig) -> None:
        self.config = config
        self.attempts = self.prompt_tokens = self.answer_tokens = 0
        self._url = config.url.rstrip("/").removesuffix("/v1") + "/v1/chat/completions"
        self._lock, self._next_start = threading.Lock(), 0.0
        self._file = None if config.cache is None else config.cache / "answers.jsonl"
        self._answers = self._read()

    @property
    def cost(self) -> float:
        """What the answers of this client have cost; answers found in the cache cost nothing."""
        config = self.config
        return (self.prompt_tokens * config.input_price + self.answer_tokens * config.output_price) / 1e6

    def ask(self, prompts: Sequence[str]) -> list[str]:
        """The answers to user messages, in order.

        Raises:
            InputError: if the server refuses, keeps failing or answers in another form, or the cost reached its limit.
        """
        keys = [self._key(prompt) for prompt in prompts]
        new = {key: prompt for key, prompt in zip(keys, prompts, strict=True) if key not in self._answers}
        with ThreadPoolExecutor(self.config.parallel) as pool:
            waiting = [pool.submit(self._answer, key, prompt) for key, prompt in new.items()]
            try:
                for answered in waiting:
                    answered.result()
            except InputError:
                pool.shutdown(cancel_futures=True)
                raise
        return [self._answers[key] for key in keys]

    def _answer(self, key: str, prompt: str) -> None:
        config = self.config
        if config.most_cost is not None and self.cost >= config.most_cost:
            raise InputError(f"key 'chat.most_cost': {self.cost:.4f} were spent, {config.most_cost:g} are allowed")
        body = {
            "model": config.model,
            "messages": [{"role": "user", "content": prompt}],
            "temperature": config.temperature,
            "max_tokens": config.max_tokens,
        }
        reply = self._patiently(body)
        try:
            text = str(reply["choices"][0]["message"]["content"] or "")
            usage = reply.get("usage") or {}
            counts = int(usage.get("prompt_tokens", 0)), int(usage.get("completion_tokens", 0))
        except (KeyError, IndexError, TypeError, AttributeError, ValueError):
            raise InputError(f"{self._url} does not answer as an OpenAI-compatible chat does") from None
        with self._lock:
            self.prompt_tokens += counts[0]
            self.answer_tokens += counts[1]
            TRAFFIC.count(*counts)
            self._answers[key] = text
            if self._file is not None:
                with self._file.open("a", encoding="utf-8") as file:
                    file.write(json.dumps({"key": key, "answer": text}) + "\n")

    def _patiently(self, body: dict[str, Any]) -> Any:
        """The reply of the first attempt that succeeds."""
        config, wait = self.config, self.config.backoff
        for attempt in range(config.retries + 1):
            self._pace()
            try:
                return self._send(body)
            except _PassingError as error:
                if attempt == config.retries:
                    raise InputError(f"{self._url}: {error} in {attempt + 1} attempts") from None
                time.sleep(min(LONGEST_WAIT, max(wait, error.retry_after)))
                wait *= 2
        raise AssertionError("unreachable")

    def _send(self, body: dict[str, Any]) -> Any:
        headers = {"User-Agent": f"tandemrec/{__version__}", "Content-Type": "application/json"}
        key = os.environ.get(self.config.key_variable)
        if key:
            headers["Authorization"] = f"Bearer {key}"
        request = urllib.request.Request(self._url, data=json.dumps(body).encode(), headers=headers)
        with self._lock:
            self.attempts += 1
        try:
            with urllib.request.urlopen(request, timeout=self.config.timeout) as response:
                return json.loads(response.read())
        except urllib.error.HTTPError as error:
            reason = " ".join(error.read().decode(errors="replace").split())[:300]
            if error.code in PASSING:
                after = error.headers.get("Retry-After", "")
                seconds = float(after) if after.replace(".", "", 1).isdigit() else 0.0
                raise _PassingError(f"{error.code} {error.reason} {reason}".strip(), seconds) from None
            hint = f" (is ${self.config.key_variable} set?)" if error.code == http.HTTPStatus.UNAUTHORIZED else ""
            raise InputError(f"{self._url} refuses with {error.code} {error.reason}{hint}: {reason}") from None
        except (urllib.error.URLError, TimeoutError, ConnectionError, http.client.HTTPException) as error:
            raise _PassingError(f"no answer ({getattr(error, 'reason', None) or error!r})", 0.0) from None
        except ValueError:
            raise InputError(f"{self._url} does not answer in JSON, expected an OpenAI-compatible server") from None

    def _pace(self) -> None:
        """Wait until the next attempt may start."""
        if self.config.per_minute is None:
            return
        with self._lock:
            start = max(time.monotonic(), self._next_start)
            self._next_start = start + 60.0 / self.config.per_minute
        time.sleep(max(0.0, start - time.monotonic()))

    def _key(self, prompt: str) -> str:
        config = self.config
        asked = [self._url, config.model, config.temperature, config.max_tokens, prompt]
        return hashlib.sha256(json.dumps(asked).encode()).hexdigest()

    def _read(self) -> dict[str, str]:
        """Answers of earlier clients; a line that a kill cut short is left out."""
        if self._file is None:
            return {}
        self._file.parent.mkdir(parents=True, exist_ok=True)
        text = self._file.read_text(encoding="utf-8") if self._file.exists() else ""
        whole = [line for line in text.splitlines(keepends=True) if line.endswith("\n")]
        self._file.write_text("".join(whole), encoding="utf-8")
        return {row["key"]: row["answer"] for row in map(json.loads, whole)}


class _PassingError(Exception):
    """A failure that may pass."""

    def __init__(self, what: str, retry_after: float) -> None:
        super().__init__(what)
        self.retry_after = retry_after
