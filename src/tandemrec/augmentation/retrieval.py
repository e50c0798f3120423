"""Retrieval by an encoder of its own: LLM-CF's examples, found by other vectors of the items than the model reads."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

from tandemrec.augmentation.memory import Memory
from tandemrec.data.dataset import Dataset
from tandemrec.llm.content import ContentConfig, content_vectors

ITEM_VECTORS = "item_vectors.safetensors"


def encode_items(dataset: Dataset, config: ContentConfig, folder: Path) -> int:
    """Vectors of all items into a folder; gives their size Z.

    Raises:
        InputError: if a column or a model is missing, or no text says anything.
    """
    vectors_IZ = content_vectors(dataset, config)
    save_file({"items": vectors_IZ.contiguous()}, folder / ITEM_VECTORS)
    return vectors_IZ.shape[1]


def read_item_vectors(folder: Path) -> Tensor:
    """What `encode_items` left, (I, Z)."""
    vectors_IZ: Tensor = load_file(folder / ITEM_VECTORS)["items"]
    return vectors_IZ


def finder_of(memory: Memory, vectors_IZ: Tensor) -> Memory:
    """The same examples with other vectors of the items, around their mean, in place of those of titles.

    It finds as `Memory` does, without the later life of whoever asks, and knows no thoughts.
    """
    found = {"title_IZ": vectors_IZ - vectors_IZ.mean(0), "thought_MZ": memory.thought_MZ[:, :0]}
    return Memory(dict(memory.named_buffers()) | found)
