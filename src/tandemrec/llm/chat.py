"""A client of any OpenAI-compatible chat endpoint: patient, paced, counted, and no answer is paid for twice."""

from __future__ import annotations

import fcntl
import hashlib
import http.client
import json
import math
import os
import re
import threading
import time
import urllib.error
import urllib.request
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from pydantic import Field

from tandemrec import __version__
from tandemrec.data.locations import store_root
from tandemrec.errors import InputError
from tandemrec.llm.traffic import TRAFFIC
from tandemrec.recommender import Config
from tandemrec.training import from_first, process_rank

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
    """No further question is asked once this process, which is a run from start to end or kill, has paid so much to the
    endpoint with the key of `key_variable`, whatever stage and system asked; questions that are open then are still
    answered and paid. null: no limit."""

    cache: Path | None = None
    """Folder in which answers are kept as they come. Who asks the same of the same endpoint and model, with the same
    temperature and `max_tokens`, finds them there and pays nothing: a stage after a kill, other stages, other runs. Of
    several answers to one question the first, the second and so on are kept apart.
    null: `chat` in `$TANDEMREC_STORE`, else in `tandemrec/artifacts` of the user's cache directory, whichever store a
    run writes to. Name another folder once a server has another model under the old name."""

    def answers_folder(self) -> Path:
        """Where answers are kept."""
        if self.cache is not None:
            return self.cache.expanduser()
        return store_root() / "chat"


class Account:
    """What this process has paid to one endpoint with one key, in the unit of `ChatConfig.input_price`.

    Attributes:
        spent: by all clients.
    """

    def __init__(self) -> None:
        self.spent, self._lock = 0.0, threading.Lock()

    def pay(self, cost: float) -> None:
        """Add to what is spent."""
        with self._lock:
            self.spent += cost


ACCOUNTS: defaultdict[tuple[str, str], Account] = defaultdict(Account)
"""By address and variable of the key: every stage makes clients of its own, and a limit holds for all of them."""


class Chat:
    """Answers prompts, each different one once, or as many times as answers are drawn.

    Attributes:
        config: the configuration.
        account: what all clients of the endpoint have paid.
        attempts: requests that were sent, failed ones included.
        prompt_tokens: tokens of answered prompts, as the server counts them.
        answer_tokens: tokens of answers.
    """

    def __init__(self, config: ChatConfig) -> None:
        self.config = config
        self.attempts = self.prompt_tokens = self.answer_tokens = 0
        self._url = config.url.rstrip("/").removesuffix("/v1") + "/v1/chat/completions"
        self.account = ACCOUNTS[self._url, config.key_variable]
        self._lock, self._next_start = threading.Lock(), 0.0
        self._answers, self._bytes_read = dict[str, str](), 0
        settings = hashlib.sha256(json.dumps(self._settings).encode()).hexdigest()[:16]
        model = re.sub(r"[^\w.-]+", "-", config.model)
        self._file = config.answers_folder() / f"{model}-{settings}.jsonl"

    @property
    def cost(self) -> float:
        """What the answers of this client have cost; those that were found cost nothing."""
        return self._price(self.prompt_tokens, self.answer_tokens)

    def ask(self, prompts: Sequence[str]) -> list[str]:
        """The answers to user messages, in order. Of several processes the first asks for all.

        Raises:
            InputError: if the server refuses, keeps failing or answers in another form, the cost reached its limit, or
                answers cannot be kept.
        """
        return [answer for (answer,) in self.draw(prompts, 1)]

    def draw(self, prompts: Sequence[str], count: int) -> list[list[str]]:
        """So many answers to each user message, every one to a request of its own; the first is that of `ask`.

        Raises:
            InputError: as `ask` does.
        """
        return from_first(self._draw(prompts, count) if process_rank() == 0 else [])

    def _draw(self, prompts: Sequence[str], count: int) -> list[list[str]]:
        self._catch_up()
        keys = [[self._key(prompt, number) for number in range(count)] for prompt in prompts]
        asked = {key: prompt for several, prompt in zip(keys, prompts, strict=True) for key in several}
        new = {key: prompt for key, prompt in asked.items() if key not in self._answers}
        if new:
            self._open_file()
        with ThreadPoolExecutor(self.config.parallel) as pool:
            try:
                waiting = [pool.submit(self._answer, key, prompt) for key, prompt in new.items()]
                for answered in waiting:
                    answered.result()
            except BaseException:
                # A Ctrl-C too: the pool would ask, and pay for, all that is left before it ends.
                pool.shutdown(cancel_futures=True)
                raise
        return [[self._answers[key] for key in several] for several in keys]

    def _answer(self, key: str, prompt: str) -> None:
        config = self.config
        spent = self.account.spent
        if config.most_cost is not None and spent >= config.most_cost:
            raise InputError(f"key 'chat.most_cost': {spent:.4f} were spent, {config.most_cost:g} are allowed")
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
            told = usage.get("prompt_tokens"), usage.get("completion_tokens")
            counts = int(told[0] or 0), int(told[1] or 0)
        except (KeyError, IndexError, TypeError, AttributeError, ValueError):
            raise InputError(f"{self._url} does not answer as an OpenAI-compatible chat does") from None
        with self._lock:
            self.prompt_tokens += counts[0]
            self.answer_tokens += counts[1]
            TRAFFIC.count(*counts, fees=self._price(*counts))
            self.account.pay(self._price(*counts))
            self._answers[key] = text
            self._keep(key, text)
        if config.most_cost is not None and told == (None, None):
            raise InputError(
                f"key 'chat.most_cost': found {config.most_cost:g}, but {self._url} does not report the tokens of its "
                "answers ('usage'), so that no limit of the cost could act; set it to null or ask another server"
            )

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
            reason = _reason(error)
            if error.code in PASSING:
                seconds = _seconds(error.headers.get("Retry-After", ""))
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

    def _price(self, prompt_tokens: int, answer_tokens: int) -> float:
        return (prompt_tokens * self.config.input_price + answer_tokens * self.config.output_price) / 1e6

    @property
    def _settings(self) -> list[str | float]:
        """What an answer depends on beside the prompt."""
        return [self._url, self.config.model, self.config.temperature, self.config.max_tokens]

    def _key(self, prompt: str, number: int) -> str:
        """Of an answer; those after the first have their number in it."""
        asked = [*self._settings, prompt, *([number] if number else [])]
        return hashlib.sha256(json.dumps(asked).encode()).hexdigest()

    def _open_file(self) -> None:
        """Make sure that answers can be kept before any is paid for."""
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            self._file.open("ab").close()
        except OSError as error:
            raise InputError(
                f"key 'chat.cache': answers cannot be kept in {self._file.parent}: {error.strerror}"
            ) from None

    def _keep(self, key: str, text: str) -> None:
        """Add an answer to the file, which other clients and processes write to as well."""
        line = json.dumps({"key": key, "answer": text}).encode() + b"\n"
        with self._file.open("a+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            end = file.seek(0, os.SEEK_END)
            file.seek(max(0, end - 1))
            # A line that a kill cut short ends here, lest it spoil the next one.
            file.write(line if file.read(1) in (b"", b"\n") else b"\n" + line)

    def _catch_up(self) -> None:
        """Take in what was kept since the last look, by whichever client; a line that a kill cut short says nothing."""
        if not self._file.is_file():
            return
        with self._file.open("rb") as file:
            file.seek(self._bytes_read)
            new = file.read()
        whole = new[: new.rfind(b"\n") + 1]
        self._bytes_read += len(whole)
        for line in whole.splitlines():
            try:
                row = json.loads(line)
                self._answers.setdefault(row["key"], row["answer"])
            except (ValueError, KeyError, TypeError):
                continue


def _reason(error: urllib.error.HTTPError) -> str:
    """What the server says of its failure; nothing where its words are cut short or do not come."""
    try:
        return " ".join(error.read().decode(errors="replace").split())[:300]
    except (OSError, http.client.HTTPException):
        return ""


def _seconds(retry_after: str) -> float:
    """The seconds that a `Retry-After` header names; 0 for anything else, such as a date."""
    try:
        seconds = float(retry_after)
    except ValueError:
        return 0.0
    return seconds if 0 <= seconds < math.inf else 0.0


class _PassingError(Exception):
    """A failure that may pass."""

    def __init__(self, what: str, retry_after: float) -> None:
        super().__init__(what)
        self.retry_after = retry_after
