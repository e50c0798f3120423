"""Settings of the whole suite: no progress bars, one torch thread a worker, a store of its own for every test, no time
limits: how long an example of hypothesis takes says something about the machine only.
"""

import os

os.environ["TANDEMREC_PROGRESS"] = "0"
# Several workers share the cores; threads of one would only wait for those of another.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("tandemrec", deadline=None)
settings.load_profile("tandemrec")


@pytest.fixture(autouse=True)
def _own_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TANDEMREC_STORE", str(tmp_path / "store"))
