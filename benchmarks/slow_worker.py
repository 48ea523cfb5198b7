"""A measuring worker whose every call really takes a given share longer: it waits inside the timed call.

python benchmarks/slow_worker.py SHARE     (started by benchmarks/noise.py in place of slimline.measure.worker)
"""

import sys
import time
from collections.abc import Mapping
from typing import Any

from slimline.measure import worker
from slimline.runtimes.runtime import Array, Runner


class Delayed(Runner):
    """Runs another runner, then waits for a share of the time that took."""

    def __init__(self, inner: Runner, share: float) -> None:
        self.inner, self.share = inner, share

    def run(self, inputs: Mapping[str, Array]) -> list[Array]:
        """The inner runner's outputs, later."""
        before = time.perf_counter()
        outputs = self.inner.run(inputs)
        end = time.perf_counter() + self.share * (time.perf_counter() - before)
        while time.perf_counter() < end:
            pass
        return outputs


class SlowWorker(worker.Worker):
    """Opens artifacts with the delay built in."""

    def open(self, command: Mapping[str, Any]) -> dict[str, Any]:
        """Open, then wrap."""
        answer = super().open(command)
        self.runner = Delayed(self.opened(), float(sys.argv[1]))
        return answer


if __name__ == "__main__":
    worker.Worker = SlowWorker  # type: ignore[misc]
    worker.main()
