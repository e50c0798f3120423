"""In-context examples and how they are found: the nearest histories, never anything of the same user's later life."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Self

import numpy as np
import polars as pl
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from tandemrec.augmentation.thoughts import THOUGHTS, VECTORS, sure_examples
from tandemrec.data.examples import Ragged
from tandemrec.errors import InputError


class Memory(nn.Module):
    """M examples with their thoughts, and the vectors of all titles, as buffers; Z is the encoder's vector size.

    Attributes:
        title_IZ: vectors of the titles, centred and of variance one in every dimension.
        thought_MZ: those of the thoughts, likewise.
        user_M: whose examples they are.
        seen_M: how many items the user had met.
        item_M: the item in question.
        label_M: 1 where the user chose it.
        met_H: the items of all histories, one after another.
        start_M: where each history starts.
        stop_M: where it stops.
    """

    title_IZ: Tensor
    thought_MZ: Tensor
    user_M: Tensor
    seen_M: Tensor
    item_M: Tensor
    label_M: Tensor
    met_H: Tensor
    start_M: Tensor
    stop_M: Tensor

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        for name in Memory.__annotations__:
            self.register_buffer(name, tensors[name].clone())
        self.histories = Ragged(*(self.get_buffer(name).cpu().numpy() for name in ("met_H", "start_M", "stop_M")))

    @classmethod
    def read(cls, folder: Path, max_length: int) -> Self:
        """From the files of `write_thoughts`, with histories of at most `max_length` items."""
        frame, vectors = pl.read_parquet(folder / THOUGHTS), load_file(folder / VECTORS)
        histories = Ragged.from_lists(frame["history"].to_list()).tail(max_length).compact()
        tensors = {"title_IZ": standardised(vectors["titles"]), "thought_MZ": standardised(vectors["thoughts"])}
        for name in ("user", "seen", "item", "label"):
            tensors[f"{name}_M"] = torch.from_numpy(frame[name].to_numpy().astype(np.int64))
        tensors["met_H"] = torch.from_numpy(histories.values)
        tensors |= {"start_M": torch.from_numpy(histories.starts), "stop_M": torch.from_numpy(histories.stops)}
        return cls(tensors)

    def check(self, each: int) -> None:
        """Make sure that every question finds `each` examples of both labels.

        Raises:
            InputError: if a user's own examples could leave fewer.
        """
        sure = sure_examples(self.user_M.cpu().numpy(), self.label_M.cpu().numpy())
        for label, word in ((1, "was chosen"), (0, "was not chosen")):
            found = int((self.label_M == label).sum())
            if sure[label] < each:
                raise InputError(
                    f"{found} thoughts of items where the item {word} are too few for {each} in-context examples of "
                    f"the kind (one user has {found - sure[label]} of them); raise 'thoughts.questions', lower "
                    "'thoughts.least' or show fewer 'examples'"
                )

    def mean_titles(self, histories: Ragged) -> Tensor:
        """Mean title vectors (B, Z) of histories; 0 for an empty one."""
        device = self.title_IZ.device
        flat = torch.from_numpy(histories.flat().astype(np.int64)).to(device)
        lengths = histories.lengths
        offsets = torch.from_numpy(np.cumsum(lengths) - lengths).to(device)
        mean_BZ: Tensor = F.embedding_bag(flat, self.title_IZ, offsets, mode="mean")
        return mean_BZ

    def nearest(self, query_BZ: Tensor, user_B: Tensor, seen_B: Tensor, each: int) -> Tensor:
        """Numbers (B, 2 · each) of the examples with the most similar histories, half of each label, the nearest last.

        Similarity is the cosine of mean title vectors: of the history alone, since the target is what is asked for. A
        user's own examples count only if they ended before the question: all that they show, the item in question
        included, was when the user had met fewer items than now.

        Args:
            query_BZ: `mean_titles` of the histories.
            user_B: who asks; -1: nobody that is known.
            seen_B: how many items the user has met.
            each: examples of each label.
        """
        similar_BM = F.normalize(query_BZ, dim=1) @ F.normalize(self.mean_titles(self.histories), dim=1).T
        later_BM = (user_B[:, None] == self.user_M) & (self.seen_M >= seen_B[:, None])
        similar_BM = similar_BM.masked_fill(later_BM, -torch.inf)
        found = [similar_BM.masked_fill(self.label_M != label, -torch.inf).topk(each, dim=1) for label in (0, 1)]
        value_BE, row_BE = (torch.cat(parts, 1) for parts in zip(*found, strict=True))
        return row_BE.gather(1, value_BE.argsort(dim=1, stable=True))


def standardised(vectors_NZ: Tensor) -> Tensor:
    """Mean 0 and variance 1 in every dimension that varies."""
    spread_Z, mean_Z = torch.std_mean(vectors_NZ.double(), 0, correction=0)
    return ((vectors_NZ.double() - mean_Z) / torch.where(spread_Z > 0, spread_Z, torch.ones_like(spread_Z))).float()
