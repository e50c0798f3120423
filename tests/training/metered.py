"""Makes a stage in which all processes but the first work for some processor seconds, and says what the first took.

usage: metered.py STORE SECONDS [killed]
"""

import sys
import time
from pathlib import Path

from tandemrec.experiment.store import Store
from tandemrec.training import part, process_rank, wait_for_all


def main(store: str, seconds: str, *how: str) -> None:
    wait_for_all()

    def make(draft: Path, work: Path) -> float:
        started = time.process_time()
        while process_rank() and time.process_time() - started < float(seconds):
            pass
        if how and process_rank():
            sys.exit(9)
        wait_for_all()
        return time.process_time() - started

    Store(Path(store)).get("stage", {}, make)
    part()


if __name__ == "__main__":
    main(*sys.argv[1:])
