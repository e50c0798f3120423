"""Fine-tunes a tiny model, in one process or as several under torchrun, and writes curve and weights.

usage: processes.py FOLDER OUT HOW [WORKSPACE]      HOW: "plain", "fsdp", "deepspeed" (ZeRO-3); "killed", dies in step 7
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.distributed.tensor import DTensor

from tandemrec.llm.finetune import FineTuneConfig, FineTuning, fine_tune, prepare
from tandemrec.llm.model import LanguageModel
from tandemrec.llm.objectives import SOFT, Prompted
from tandemrec.training import TrainingConfig, part


def prompted(n: int, seed: int) -> Prompted:
    rng = np.random.default_rng(seed)
    prompts = [[0, *rng.integers(3, 60, rng.integers(1, 12)).tolist()] for _ in range(n)]
    return Prompted(prompts, [[[prompt[-1], prompt[-1], 1], [prompt[0], 1]] for prompt in prompts])


def main(folder: str, out: str, how: str, workspace: str | None = None) -> None:
    torch.set_num_threads(1)
    training = TrainingConfig(epochs=2, learning_rate=5e-3, patience=None, checkpoint_seconds=0, log_every=1)
    config = FineTuneConfig(batch_size=9, dropout=0.0, micro_batch_tokens=60, training=training)
    lm = prepare(LanguageModel.load(folder), config, 7)
    task = FineTuning(lm, SOFT(tau=0.3), config, prompted(37, 0), prompted(8, 1), seed=7)
    calls, loss = [], task.loss

    def watched(batch: list[int]) -> Tensor:
        calls.append(batch)
        if "killed" in how and len(calls) == 14:
            sys.exit(9)
        parameters = list((task.prepared or task.module).parameters())
        assert any(isinstance(parameter, DTensor) for parameter in parameters) == ("fsdp" in how)
        assert all(hasattr(parameter, "ds_id") for parameter in parameters) == ("deepspeed" in how)
        return loss(batch)

    task.loss = watched  # type: ignore[method-assign]
    report = fine_tune(task, None if workspace is None else Path(workspace))
    weights = {name: p.detach() for name, p in task.module.named_parameters() if p.requires_grad}
    if not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0:
        save_file({name: weight.contiguous() for name, weight in weights.items()}, Path(out) / "weights.safetensors")
        curve = [{key: value for key, value in row.items() if key != "seconds"} for row in report.curve]
        (Path(out) / "curve.json").write_text(json.dumps(curve))
    part()


if __name__ == "__main__":
    main(*sys.argv[1:])
