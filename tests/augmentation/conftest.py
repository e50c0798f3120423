"""The toy data of the language models' tests, and a tiny language model of it."""

from tests.llm.conftest import nano_folder, split, toy

__all__ = ["nano_folder", "split", "toy"]
