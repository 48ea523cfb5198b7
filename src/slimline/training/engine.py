"""Hugging Face Accelerate as the loop uses it: devices, processes, trackers.

Whatever launches the processes (``torchrun``, ``accelerate launch``, or nothing) is found from the environment.
Autocast and loss scaling are torch's own, in `slimline.training.lesson` and the loop: Accelerate keeps one precision
for the whole process, and one search trains in several.
"""

import os
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from slimline.errors import SlimlineError


def processes() -> tuple[int, int]:
    """The number of this process and of all that the launcher started: (0, 1) without a launcher."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def leave_processes() -> None:
    """Say goodbye to the other processes, if there are any."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


class Engine:
    """One training run's view of the devices and processes.

    Args:
        tracker: a name that Accelerate knows, or nothing.
        folder: where the tracker writes.
        several_outputs: whether some weights may get no gradient in a step.
        note: told when the tracker fails, which ends the tracking and nothing else.

    Raises:
        SlimlineError: the tracker is not known, not installed, or has nowhere to write.
    """

    def __init__(
        self,
        tracker: str = "",
        folder: Path | None = None,
        several_outputs: bool = False,
        note: Callable[[str], None] = lambda _: None,
    ) -> None:
        from accelerate import Accelerator, DistributedDataParallelKwargs

        check_tracker(tracker, folder)
        started = processes()[1]
        self.accelerator = Accelerator(
            mixed_precision="no",
            # Without this, processes on a machine without an accelerator would each train alone.
            cpu=started > 1 and not torch.accelerator.is_available(),
            log_with=tracker or None,
            project_dir=None if folder is None else str(folder),
            kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=several_outputs)],
        )
        self.tracker, self.note = tracker, note
        self.device: torch.device = self.accelerator.device
        self.process: int = self.accelerator.process_index
        self.processes: int = self.accelerator.num_processes
        self.main: bool = self.accelerator.is_main_process
        if self.processes != started:
            raise SlimlineError(
                f"{started} processes were started, but Accelerate found {self.processes}: start them with torchrun or "
                "accelerate launch, and look at its configuration."
            )

    def prepare(self, lesson: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[nn.Module, torch.optim.Optimizer]:
        """The two as this run's devices and processes need them."""
        wrapped: tuple[nn.Module, torch.optim.Optimizer] = self.accelerator.prepare(lesson, optimizer)
        return wrapped

    def without_sync(self, lesson: nn.Module, wanted: bool) -> AbstractContextManager[Any]:
        """Gradients stay in this process while ``wanted``."""
        return self.accelerator.no_sync(lesson) if wanted and self.processes > 1 else nullcontext()

    def every(self, value: float) -> list[float]:
        """What each process says, in their order."""
        if self.processes == 1:
            return [value]
        said: Tensor = self.accelerator.gather(torch.tensor([value], dtype=torch.float64, device=self.device))
        return [float(one) for one in said]

    def mean(self, value: float) -> float:
        """The mean over all processes."""
        return sum(self.every(value)) / self.processes

    def from_main(self, value: float) -> float:
        """What the main process says."""
        if self.processes == 1:
            return value
        from accelerate.utils import broadcast

        told: Tensor = broadcast(torch.tensor([value], dtype=torch.float64, device=self.device), from_process=0)
        return float(told)

    def asked_of_main(self, question: Callable[[], float], what: str) -> float:
        """What the main process finds; where it fails, no other one is left waiting for the answer.

        Args:
            what: the main process is to do, in words.

        Raises:
            SlimlineError: in the other processes, where the main one failed. There it is what the question raised.
        """
        try:
            answer = question() if self.main else 0.0
        except Exception:  # the user's code may raise anything; the others are told before it goes on its way
            self.from_main(1.0)
            raise
        if self.from_main(0.0):
            raise SlimlineError(f"The main process cannot {what}, and says why: look at its message.")
        return self.from_main(answer)

    @torch.no_grad()
    def take_from_main_(self, tensors: Iterable[Tensor]) -> None:
        """Every process gets the numbers that the main one has in these tensors, bit for bit."""
        if self.processes == 1:
            return
        from accelerate.utils import broadcast

        for tensor in tensors:
            # As bytes on this run's device, since what carries them knows neither all types nor all devices.
            raw = tensor.detach().contiguous().flatten().view(torch.uint8).to(self.device, copy=True)
            if raw.numel():
                tensor.copy_(broadcast(raw, from_process=0).to(tensor.device).view(tensor.dtype).view(tensor.shape))

    def watch(self, name: str, facts: dict[str, Any]) -> None:
        """Open the tracker under the name of a run."""
        self._tell(lambda: self.accelerator.init_trackers(name, config=facts))

    def log(self, values: dict[str, float], step: int) -> None:
        """Scalars of a step."""
        self._tell(lambda: self.accelerator.log(values, step=step))

    def histograms(self, values: dict[str, Tensor], step: int) -> None:
        """Distributions of a step, where the tracker draws them; those with NaN or infinity in them have none."""
        if self.main:
            self._tell(lambda: self._draw(values, step))

    def end(self) -> None:
        """Close the tracker."""
        self._tell(self._finish)

    def _draw(self, values: dict[str, Tensor], step: int) -> None:
        drawn = {n: x.detach().float().cpu() for n, x in values.items() if x.numel() and torch.isfinite(x).all()}
        for tracker in self.accelerator.trackers:
            add = getattr(tracker.tracker, "add_histogram", None)
            if add is not None:
                for name, tensor in drawn.items():
                    add(name, tensor, step)

    def _finish(self) -> None:
        for tracker in self.accelerator.trackers:  # end_training() would end the other processes too
            tracker.finish()

    def _tell(self, what: Callable[[], None]) -> None:
        """Say something to the tracker. The first time that it fails is noted, and it is asked for nothing more."""
        if not self.tracker:
            return
        try:
            what()
        except Exception as error:  # the code of others, whose errors (of files, networks, services) cannot be listed
            told = f"{type(error).__name__}: {error}".splitlines()[0]
            self.note(f"The tracker {self.tracker} failed ({told}): training goes on without it.")
            self.tracker = ""


def check_tracker(tracker: str, folder: Path | None) -> None:
    """Fail in the first second.

    Raises:
        SlimlineError: the tracker is not known, not installed, or has nowhere to write.
    """
    if not tracker:
        return
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

    names = sorted(str(name) for name in LOGGER_TYPE_TO_CLASS)
    if tracker not in names:
        raise SlimlineError(f"The tracker {tracker!r} is unknown: use {', '.join(names)}.")
    if tracker == "tensorboard":
        try:
            import tensorboard  # noqa: F401 - Accelerate needs it
        except ImportError as error:
            raise SlimlineError("TensorBoard is not installed: run pip install 'slimline[tensorboard]'.") from error
    elif tracker not in [str(name) for name in get_available_trackers()]:
        raise SlimlineError(f"The tracker {tracker} is not installed: run pip install {tracker}.")
    if folder is None:
        raise SlimlineError(f"The tracker {tracker} needs a folder to write to: give the run a folder.")
