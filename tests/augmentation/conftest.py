"""The toy data of the language models' tests."""

from tests.llm.conftest import split, toy

__all__ = ["split", "toy"]
