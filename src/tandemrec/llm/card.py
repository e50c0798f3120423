"""The model card of a fine-tuned model: what it is, how it is asked, what it was trained with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tandemrec import __version__

FENCE = "```"


def model_card(
    *, kind: str, base: str, adapter: bool, prompt: str, answer: str, settings: Mapping[str, Any], items: int
) -> str:
    """A `README.md` as Hugging Face reads it.

    Args:
        kind: recommender the model is part of, such as BIGRec.
        base: folder or hub id of the base model.
        adapter: whether the folder holds an adapter rather than a whole model.
        prompt: an example of a prompt.
        answer: an example of an answer.
        settings: of prompt, training and generation.
        items: size of the catalogue.
    """
    # A local folder means nothing elsewhere, so only its name is told; a hub id is told whole.
    name = Path(base).name if Path(base).is_absolute() else base
    front = {
        "library_name": "peft" if adapter else "transformers",
        "base_model": name,
        "pipeline_tag": "text-generation",
        "tags": ["recommendation", "tandemrec", kind.lower()],
    }
    what = "A LoRA adapter of" if adapter else "A fine-tuned version of"
    return f"""---
{yaml.safe_dump(front, sort_keys=False)}---

# {kind} on {name}

{what} `{name}` that writes the title of the next item for a user's history, over a catalogue of {items:,} items. Made
with tandemrec {__version__}; the folder above this one is the whole recommender (`{kind}.load`), which ranks the
catalogue by what the model writes.

## How it is asked

The prompt, BOS included, and an answer, which EOS follows. The two are tokenised apart.

{FENCE}
{prompt}
{FENCE}

{FENCE}
{answer}
{FENCE}

## Settings

{FENCE}yaml
{yaml.safe_dump(dict(settings), sort_keys=False, allow_unicode=True)}{FENCE}

## Limits

It knows the titles and the taste of the data it was trained on and nothing later; it may write titles that do not exist
(grounding maps them to the nearest that does); it repeats whatever bias the log has. Its licence follows those of the
base model and of the data.
"""
