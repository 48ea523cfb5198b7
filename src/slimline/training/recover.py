"""The loop that repairs a network: batches in, gradient steps, one cycle of the learning rate.

It runs on Hugging Face Accelerate (`slimline.training.engine`): the same code trains in one process, in several on one
machine and on many machines. A step's batch is the same however many processes share it, so their number does not
change the result but for rounding, with two exceptions: dropout, of which each process draws its own, and batch norm,
which normalises each process's share (or part of a step) by the statistics of that share. The running statistics of
batch norms are those of the main process, from which the others take them over in every step.

A step depends on the weights, the plan, its own number and the number of processes only; a run that was killed goes on
from its last checkpoint and, on as many processes, ends with the very same weights. Every process hands back the
network of the main one.
"""

import hashlib
import json
import math
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from slimline import __version__
from slimline.errors import SlimlineError
from slimline.network.network import Network, get_tensor
from slimline.training.average import Average
from slimline.training.batch import Batches, shares
from slimline.training.checkpoint import (
    optimizer_tensors,
    read_checkpoint,
    restore_optimizer_,
    write_checkpoint,
)
from slimline.training.codebooks import share_steps_
from slimline.training.curve import WINDOW, Curve
from slimline.training.engine import Engine
from slimline.training.hook import Hook
from slimline.training.layout import channels_last_, contiguous_, move_
from slimline.training.lesson import Lesson, Loss, loss_identity
from slimline.training.plan import Plan
from slimline.training.watch import HISTOGRAM_SAMPLES, activation_histograms, sparsity, weight_histograms
from slimline.training.workspace import Workspace

EXPLODED = 100.0
"""A window whose mean loss is so many times that of the first step ends the run."""
LEAST_LOSS = 0.01
"""A first loss counts as at least so much: that of a network which starts where its teacher is may only rise."""
OTHER_TRAINING = -1
"""Stands for the step of a checkpoint that this run cannot go on from."""

Judge = Callable[[Network], float]
"""The mean score on held-out data of a network in the mode of inference; higher is better, and NaN says that it has
none. What it raises ends the run. One that has an ``original_score`` tells the curve what the original scores on the
same data."""


def recover(
    student: Network,
    batches: Batches,
    loss: Loss,
    plan: Plan,
    judge: Judge | None = None,
    hooks: Sequence[Hook] = (),
    workspace: Workspace | None = None,
) -> tuple[Network, Curve]:
    """Train a copy of ``student``; it comes back on the CPU in the mode of inference, in every process the same.

    A loss that stops being a finite number or explodes ends the run: the best weights so far are handed back, and the
    curve's notes say so. Where there is a judge the best are those of the best score, else those of the lowest loss.

    Args:
        judge: its score is watched; with ``plan.patience`` it ends the run early.
        hooks: what methods do during training, in this order.
        workspace: with a folder, a run that was killed is continued from its last checkpoint there. The checkpoint
            stays; who has stored the result removes it (`slimline.training.checkpoint.remove_checkpoint`).

    Raises:
        SlimlineError: batches that do not fit, a damaged checkpoint, a tracker that is not there, or processes that
            were not given the same.
    """
    run = _Run(student, batches, loss, plan, judge, hooks, workspace or Workspace())
    devices = [run.engine.device] if run.engine.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), warnings.catch_warnings():
        # A 1x1 kernel has the same numbers in the same order whichever of its axes is called the innermost.
        warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides", UserWarning)
        return run.all_steps()


class _Run:
    """The state of one run."""

    def __init__(
        self,
        student: Network,
        batches: Batches,
        loss: Loss,
        plan: Plan,
        judge: Judge | None,
        hooks: Sequence[Hook],
        workspace: Workspace,
    ) -> None:
        self.batches, self.plan, self.judge, self.hooks, self.workspace = batches, plan, judge, hooks, workspace
        self.identity = _identity(student, batches, plan, loss, hooks)
        self.engine = Engine(workspace.tracker, workspace.folder, len(student.output_names) > 1, self._note)
        if batches.size < self.engine.processes:
            raise SlimlineError(
                f"{self.engine.processes} processes cannot share batches of {batches.size} samples: use larger batches "
                "or fewer processes."
            )
        network = student.copy().set_training_(True)
        for hook in hooks:
            network = hook.begin(network, plan.steps)
        self.network = channels_last_(move_(network, self.engine.device))
        share_steps_(self.network)
        self.lesson = Lesson(self.network, loss, plan.precision, self.engine.device, plan.compiled)
        self.lesson.to(self.engine.device)
        self.parameters = [p for p in self.lesson.parameters() if p.requires_grad]
        self.optimizer = plan.make_optimizer(self.parameters)
        self.wrapped, self.stepper = self.engine.prepare(self.lesson, self.optimizer)
        self.scaler = torch.amp.GradScaler(self.engine.device.type, enabled=plan.precision == "fp16")
        self.average = Average(self.network, plan.ema) if plan.ema else None
        self.result = (self.average.network if self.average else self.network).twin(training=False)
        self.curve = Curve(
            plan.steps, precision=plan.precision, device=self.engine.device.type, processes=self.engine.processes
        )
        self.curve.original = getattr(judge, "original_score", None)
        self.recent: list[Tensor] = []
        self.best: dict[str, Tensor] = {}
        self.best_value, self.best_step, self.waited = -math.inf, 0, 0
        self.stopped = ""
        """Why training cannot go on, or need not."""
        self.alone = self.engine.processes == 1 and self.engine.device.type == "cpu"
        """Whether the loss of every step can be looked at for nothing."""

    def all_steps(self) -> tuple[Network, Curve]:
        started, first = time.monotonic(), self._resume()
        self.saved, self.seconds_before = started, self.curve.seconds
        try:
            self.engine.watch("training", {k: v for k, v in asdict(self.plan).items() if v is not None})
            if first == 0:
                self._judge(0)
            step = first
            while step < self.plan.steps and not self.stopped:
                self._step(step)
                step += 1
                self.curve.seconds = self.seconds_before + time.monotonic() - started
                self._after(step)
                self._checkpoint(step)
        finally:
            self.engine.end()
        if self.stopped:
            self._note(self.stopped)
        if self.stopped or (self.plan.patience and self.judge is not None):
            self._put(self.best)
        self.curve.seconds = self.seconds_before + time.monotonic() - started
        return self._delivered(), self.curve

    def _step(self, step: int) -> None:
        """One update from one batch, which processes and parts of a step share."""
        torch.manual_seed(_seed(self.plan.seed, step, self.engine.process))
        for group in self.optimizer.param_groups:
            group["lr"] = self.plan.rate(step)
        for hook in self.hooks:
            hook.before_step(self.network, step)
        mine = shares(self.batches.size, self.engine.processes)[self.engine.process]
        parts = shares(0, self.plan.accumulate, mine)
        losses = []
        for part in parts:
            with self.engine.without_sync(self.wrapped, wanted=part is not parts[-1]):
                losses.append(self._backward(step, part, penalised=part is parts[-1]))
        total = torch.stack(losses).sum()
        if self.alone and not math.isfinite(total):
            name = self.batches.batch(step, mine).not_finite()
            self._stop(
                step, f"{name!r} of the batch holds NaN or infinity" if name else f"the loss became {float(total)}"
            )
            return
        self.scaler.unscale_(self.optimizer)
        norm = self.engine.accelerator.clip_grad_norm_(self.parameters, self.plan.gradient_norm)
        if self.alone and not self.scaler.is_enabled() and not math.isfinite(norm):
            self._stop(step, "the gradient holds numbers that are not finite")
            return
        if self.scaler.is_enabled():
            self.scaler.step(self.optimizer)  # leaves the step out where fp16 overflowed, and scales less from then on
            self.scaler.update()
        else:
            self.stepper.step()
        self.stepper.zero_grad(set_to_none=True)
        for hook in self.hooks:
            hook.after_step(self.network, step)
        if self.average is not None:
            self.average.update(step)
        self.recent.append(total)  # a number only when it is looked at, since a GPU would have to wait for it
        if self.curve.start is None:
            self.curve.start = self.engine.mean(float(total))

    def _backward(self, step: int, rows: slice, penalised: bool) -> Tensor:
        """Gradients of a part of a step's batch, weighted so that those of all parts add up to those of the mean."""
        batch = self.batches.batch(step, rows).check(step).moved(lambda x: x.to(self.engine.device, non_blocking=True))
        weight = len(batch) * self.engine.processes / self.batches.size
        try:
            value: Tensor = self.wrapped(batch) * weight
        except (RuntimeError, ValueError, IndexError) as error:
            shapes = ", ".join(f"{name} {tuple(x.shape)}" for name, x in batch.tensors())
            raise SlimlineError(
                f"Training step {step + 1} failed on a batch of {shapes}: {str(error).strip().splitlines()[0]}."
            ) from error
        for hook in self.hooks if penalised else ():
            penalty = hook.penalty(self.network, step)
            value = value if penalty is None else value + penalty
        self.engine.accelerator.backward(self.scaler.scale(value))
        return value.detach()

    def _after(self, done: int) -> None:
        """What is looked at between steps."""
        if self.stopped:
            return
        judged = self.plan.judgement_after(done)
        if len(self.recent) == WINDOW or done == self.plan.steps:
            self._window(done)
        elif judged:
            self._looked(done)
        if judged and not self.stopped:
            self._judge(done)

    def _looked(self, done: int, most: float = math.inf) -> float:
        """The mean loss since the last window, in all processes; the run ends here where it is no number, or too large.

        The weights are looked at too: the loss shows only a step later what an update made of them.
        """
        assert self.curve.start is not None
        mean = self.engine.mean(float(torch.stack(self.recent).double().mean()))
        finite = torch.stack([torch.isfinite(p).all() for p in self.parameters]).all()
        if not math.isfinite(mean) or mean > most:
            self._stop(done - 1, f"the loss exploded to {mean:.3g} from {self.curve.start:.3g}")
        elif self.engine.mean(float(finite)) < 1:
            self._stop(done - 1, "the weights hold numbers that are not finite")
        return mean

    def _window(self, done: int) -> None:
        """One entry of the curve; a loss that exploded ends the run here."""
        mean = self._looked(done, EXPLODED * max(abs(self.curve.start or 0.0), LEAST_LOSS))
        self.recent.clear()
        if self.stopped:
            return
        rate, zeros = self.plan.rate(done - 1), sparsity(self.network)
        self.curve.add(done, mean, rate, zeros)
        self.engine.log({"loss": mean, "learning rate": rate, "sparsity": zeros}, done)
        if self.judge is None and -mean > self.best_value:
            self._keep(-mean, done)
        self.workspace.step(done, self.plan.steps)

    def _judge(self, done: int) -> None:
        """The score on held-out data, which the main process takes; too long without a better one ends the run."""
        if self.judge is None:
            if done == 0:
                self._keep(-math.inf, 0)
            return
        judge, what = self.judge, f"judge the network after step {done} of {self.plan.steps}"
        score = self.engine.asked_of_main(lambda: judge(self.result), what)
        if not math.isfinite(score):
            if done == self.plan.steps and self.best_value > -math.inf:
                self._stop(done - 1, f"the score became {score}")
                return
            self._note(f"The score after step {done} of {self.plan.steps} is {score}: it does not count.")
            score = -math.inf
        if done == 0:
            self._keep(score, 0)
        if score > -math.inf:
            self._told(score, done)
        if score > self.best_value:
            self._keep(score, done)
        elif done > 0:
            self._waited(done)

    def _told(self, score: float, done: int) -> None:
        """Put a score into the curve and the tracker, with the distributions of weights and activations."""
        self.curve.judged.append(done)
        self.curve.scores.append(score)
        self.engine.log({"score": score}, done)
        if self.engine.tracker and self.engine.main:
            few = self.batches.batch(0, slice(0, min(HISTOGRAM_SAMPLES, self.batches.size)))
            inputs = {name: x.to(self.engine.device) for name, x in few.inputs.items()}
            self.engine.histograms(weight_histograms(self.result) | activation_histograms(self.result, inputs), done)

    def _waited(self, done: int) -> None:
        """Another judgement without a better score."""
        self.waited += 1
        if self.plan.patience and self.waited >= self.plan.patience and done < self.plan.steps:
            self.stopped = (
                f"Training ended early, after step {done} of {self.plan.steps}: no better score in {self.waited} "
                f"judgements; the weights of step {self.best_step} were kept."
            )

    def _keep(self, value: float, done: int) -> None:
        """These weights are the best so far."""
        self.best_value, self.best_step, self.waited = value, done, 0
        self.best = {name: tensor.detach().clone() for name, tensor in self.result.weights().items()}

    @torch.no_grad()
    def _put(self, weights: dict[str, Tensor]) -> None:
        """Hand back these weights."""
        for name, tensor in self.result.weights().items():
            tensor.copy_(weights[name])

    def _stop(self, step: int, what: str) -> None:
        """Training cannot go on after this step."""
        kept = f"the weights of step {self.best_step}" if self.best_step else "the weights as they came"
        self.stopped = (
            f"Training stopped at step {step + 1} of {self.plan.steps}: {what}; {kept} were kept. Lower the learning "
            f"rate (now {self.plan.learning_rate:g}) or look for extreme values in the training data."
        )

    def _note(self, text: str) -> None:
        self.curve.notes.append(text)
        self.workspace.note(text)

    def _delivered(self) -> Network:
        """What is handed back: a network on the CPU, in the mode of inference, that shares nothing with the run.

        In every process it is that of the main one to the bit: the processes have seen other samples, from which batch
        norms took other statistics, and the next training is known by the digest of the network that it begins with.
        """
        trained = self.network.twin(training=False).copy()
        with torch.no_grad():
            for name, tensor in self.result.weights().items():
                get_tensor(trained.module, name).copy_(tensor)
        contiguous_(move_(trained, torch.device("cpu")))
        for hook in self.hooks:
            trained = hook.end(trained)
        self.engine.take_from_main_(trained.weights().values())
        return trained.set_training_(False)

    def _checkpoint(self, done: int) -> None:
        """Store the run where it is due. A disk that is full does not end the training, only the storing."""
        folder, now = self.workspace.folder, time.monotonic()
        if self.stopped or folder is None or not self.engine.main or now - self.saved < self.workspace.checkpoint_s:
            return
        if self.recent and self.engine.processes > 1:
            return  # each process knows its own losses only; at the end of a window there is nothing to know
        facts = {
            "identity": self.identity, "step": done, "curve": self.curve.as_json(),
            "recent": [float(loss) for loss in self.recent],
            "best": [self.best_value if self.best_value > -math.inf else None, self.best_step, self.waited],
            "scaler": self.scaler.state_dict(),
        }  # fmt: skip
        failed = write_checkpoint(folder, self._tensors(), facts)
        if failed:
            self._note(
                f"No checkpoint can be written to {folder} ({failed}): training goes on, but cannot be continued if it "
                "is stopped; make room there."
            )
            self.workspace = replace(self.workspace, folder=None)
        self.saved = time.monotonic()

    def _tensors(self) -> dict[str, Tensor]:
        """Everything that changes during a run, by name."""
        parts: dict[str, dict[str, Tensor]] = {
            "weights": self.network.weights(),
            "loss": dict(self.lesson.loss.state_dict()) if isinstance(self.lesson.loss, nn.Module) else {},
            "average": self.average.network.weights() if self.average else {},
            "best": self.best,
            "optimizer": optimizer_tensors(self.optimizer),
        }
        parts |= {f"hook {i}": hook.tensors() for i, hook in enumerate(self.hooks)}
        return {f"{part}/{name}": tensor for part, tensors in parts.items() for name, tensor in tensors.items()}

    def _resume(self) -> int:
        """Take up a stored run; the number of steps it had done."""
        folder = self.workspace.folder
        stored = None if folder is None else read_checkpoint(folder)
        other = stored is not None and stored[1]["identity"] != self.identity
        if other:
            self._note(f"The checkpoint in {folder} is that of another training: beginning anew.")
            stored = None
        first = 0 if stored is None else int(stored[1]["step"])
        self._check_agreed(OTHER_TRAINING if other else first)
        if stored is not None:
            self._restore(*stored)
            self._note(f"Continued after step {first} of {self.plan.steps}.")
        return first

    def _check_agreed(self, found: int) -> None:
        """Every process has to go on from the same step.

        Args:
            found: the step of the checkpoint that this process sees, 0 for none, or `OTHER_TRAINING`.
        """
        every, folder = set(self.engine.every(found)), self.workspace.folder
        if len(every) == 1:
            return
        if OTHER_TRAINING in every and 0 not in every:
            raise SlimlineError(
                f"The checkpoint in {folder} is that of this training for some of the processes and that of another "
                "for the rest: give all of them the same network, data and settings."
            )
        raise SlimlineError(
            f"The processes do not see the same checkpoint in {folder}: give a folder that all machines share."
        )

    @torch.no_grad()
    def _restore(self, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        self.curve = Curve(**facts["curve"])
        self.recent = [torch.tensor(loss) for loss in facts["recent"]]
        value, self.best_step, self.waited = facts["best"]
        self.best_value = -math.inf if value is None else value
        self.scaler.load_state_dict(facts["scaler"])
        apart: dict[str, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            part, _, rest = name.partition("/")
            apart.setdefault(part, {})[rest] = tensor
        self.best = {n: t.to(self.engine.device) for n, t in apart.pop("best").items()}
        restore_optimizer_(self.optimizer, apart.pop("optimizer", {}))
        ours = self._tensors()
        for part, stored in apart.items():
            for name, tensor in stored.items():
                ours[f"{part}/{name}"].copy_(tensor)


def _identity(student: Network, batches: Batches, plan: Plan, loss: Loss, hooks: Sequence[Hook]) -> str:
    """What a checkpoint must have in common with a run that continues it.

    How many processes share it is free, though another number of them does not end with the very same weights.
    """
    learnt = [batches.identity, batches.size, loss_identity(loss), [hook.identity for hook in hooks]]
    text = json.dumps([asdict(plan), student.digest(), *learnt, __version__])
    return hashlib.sha256(text.encode()).hexdigest()


def _seed(seed: int, step: int, process: int) -> int:
    return int(np.random.SeedSequence((seed, step, process)).generate_state(1)[0])
