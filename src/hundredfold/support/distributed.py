"""Train one model in several processes that torchrun started (data parallelism).

Each process has the whole model and takes its share of every batch. After each step all processes
have the same weights, buffers and losses, so only the first one writes files. Batch normalisation
uses a process's own share of the batch, unless the configuration says otherwise, and its running
statistics are averaged over the processes.
"""

import itertools
import os
import platform
import statistics
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous

from hundredfold.support.errors import UserError, first_line
from hundredfold.support.text import plural

SLOW = 1.3
"""Number of times as long as the median of the others that a slow process works for a step."""


@dataclass
class _Pace:
    """How long this process worked for each of the last steps."""

    waited: float = 0.0
    """Time in seconds spent in exchanges with the other processes since the last step."""
    work: list[float] = field(default_factory=list)
    """Seconds of each step without that time."""


@dataclass(frozen=True)
class Processes:
    """The group of processes that train together, or a single process by default."""

    rank: int = 0
    """Number of this process. Process 0 writes files and shows progress."""
    size: int = 1
    """Number of processes."""
    launch: str = ""
    """Identifier of the torchrun launch, which stays the same when torchrun restarts processes."""
    machines: tuple[str, ...] = ()
    """Name of the machine that each process runs on."""
    pace: _Pace = field(default_factory=_Pace, compare=False, repr=False)

    def share(self, batch: slice) -> slice:
        """Return this process's positions in a batch.

        If a batch has fewer than two pictures for each process, every process takes all of it.
        """
        if batch.stop - batch.start < 2 * self.size:
            return batch
        return slice(batch.start + self.rank, batch.stop, self.size)

    def average(self, model: nn.Module, loss: Tensor, weight: Tensor | float) -> Tensor:
        """Combine gradients, floating-point buffers and losses of all processes.

        Gradients are summed and divided by the total weight. Buffers become their weighted mean.

        Args:
            model: the model, with the gradients of the loss of this process's share of the batch,
                multiplied by the weight.
            loss: loss of this share, 0-dimensional.
            weight: weight of this share, by which its loss was divided.

        Returns:
            The loss of the whole batch, 0-dimensional.

        Raises:
            UserError: another process has ended.
        """
        if self.size == 1:
            return loss
        gradients = [w.grad for w in model.parameters() if w.grad is not None]
        buffers = [buffer for buffer in model.buffers() if buffer.is_floating_point()]
        means = [loss, torch.ones_like(loss), *buffers]
        flat = torch.cat(
            [*(t.flatten() * weight for t in means), *(t.flatten() for t in gradients)]
        )
        self._all_reduce(flat)
        flat /= flat[1].clone()
        tensors = [*buffers, *gradients]
        parts = flat[2:].split([tensor.numel() for tensor in tensors])
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.copy_(part.view_as(tensor))
        return flat[0].clone()

    def count_step(self, seconds: float) -> None:
        """Record a finished step for `describe_slow`, with the time in seconds that it took."""
        if self.size > 1:
            self.pace.work.append(seconds - self.pace.waited)
            self.pace.waited = 0.0

    def describe_slow(self) -> str:
        """Return a sentence about the process that the others wait for; empty if there is none.

        All processes must call this method. It is about the steps since the last call.
        """
        if self.size == 1 or not self.pace.work:
            return ""
        seconds = torch.zeros(self.size)
        seconds[self.rank] = statistics.median(self.pace.work)
        self.pace.work.clear()
        self.all_sum(seconds)
        slowest = int(seconds.argmax())
        median = statistics.median(seconds.tolist()[:slowest] + seconds.tolist()[slowest + 1 :])
        ratio = float(seconds[slowest]) / median
        if ratio < SLOW:
            return ""
        return (
            f"Process {slowest} on {self.machines[slowest]} takes {ratio:.1f} times as long for a "
            "step as the other processes, which have to wait for it."
        )

    def all_sum(self, values: Tensor) -> None:
        """Replace a tensor on the CPU by the sum of all processes' tensors, in place."""
        if self.size > 1:
            self._all_reduce(values)

    def broadcast_model(self, model: nn.Module) -> None:
        """Copy the first process's weights and buffers to all, as CPUs may round differently."""
        if self.size == 1:
            return
        for value in model.state_dict().values():
            copy = value.contiguous()
            with _lost_process_errors():
                dist.broadcast(copy, 0)
            value.copy_(copy)

    def all_max(self, number: int) -> int:
        """Return the largest of all processes' numbers."""
        if self.size == 1:
            return number
        largest = torch.tensor(number)
        self._all_reduce(largest, dist.ReduceOp.MAX)
        return int(largest)

    def broadcast(self, make: Callable[[], str]) -> str:
        """Call `make` in the first process, and return its text in all processes."""
        texts = [make() if self.rank == 0 else ""]
        if self.size > 1:
            with _lost_process_errors():
                dist.broadcast_object_list(texts)
        return texts[0]

    def barrier(self) -> None:
        """Wait until all processes have called this method."""
        self.all_max(0)

    @contextmanager
    def main_process_first(self) -> Iterator[None]:
        """Run the block, such as a download, in the first process before the others run it."""
        if self.rank:
            self.barrier()
        yield
        if not self.rank:
            self.barrier()

    def _all_reduce(
        self, values: Tensor, operation: dist.ReduceOp.RedOpType = dist.ReduceOp.SUM
    ) -> None:
        started = time.perf_counter()
        with _lost_process_errors():
            dist.all_reduce(values, operation)
        self.pace.waited += time.perf_counter() - started


@contextmanager
def _lost_process_errors() -> Iterator[None]:
    """Explain an error of torch that means that another process has ended.

    Raises:
        UserError: instead of the error of torch.
    """
    try:
        yield
    except RuntimeError as error:
        raise UserError(
            f"Another process of this training has ended, so this one ends too "
            f"({first_line(error)}). If there is a run directory already, continue it by starting "
            "the same number of processes with `resume RUN` instead of `train`."
        ) from error


SINGLE_PROCESS = Processes()
TIMEOUT = timedelta(hours=2)
"""Maximum time to wait for another process, which may be reading data or evaluating."""
_group_numbers = itertools.count()
_current: list[Processes] = []
"""The group that this process has joined, if any."""


@contextmanager
def join_processes() -> Iterator[Processes]:
    """Join the processes that torchrun started until the block ends.

    The backend is gloo for CPUs and NCCL for GPUs. Without torchrun, yield a group of one process.
    Within another such block, yield its group.

    Raises:
        UserError: the other processes cannot be reached.
    """
    processes = Processes(rank(), int(os.environ.get("WORLD_SIZE", "1")))
    if processes.size == 1 or _current:
        yield _current[-1] if _current else processes
        return
    cuda = torch.cuda.is_available() and local_rank() < torch.cuda.device_count()
    try:
        if cuda:
            torch.cuda.set_device(local_rank())
        store, *_ = next(rendezvous("env://"))
        launch = store.compare_set("launch", "", uuid.uuid4().hex).decode()
        processes = replace(processes, launch=launch)
        # torchrun keeps its store over a restart, with the addresses of the ended processes in it.
        prefix = f"{restart_count()}-{next(_group_numbers)}"
        store = dist.PrefixStore(prefix, store)  # type: ignore[attr-defined]
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if cuda else "gloo",
            store=store,
            rank=processes.rank,
            world_size=processes.size,
            timeout=TIMEOUT,
        )
        machines = [""] * processes.size
        dist.all_gather_object(machines, platform.node())
        processes = replace(processes, machines=tuple(machines))
    except (RuntimeError, ValueError) as error:
        others = plural(processes.size - 1, "other process")
        raise UserError(
            f"Cannot connect to {others}: {first_line(error)}. Start all processes with "
            "torchrun --nproc-per-node=N -m hundredfold train ..."
        ) from error
    _current.append(processes)
    try:
        yield processes
    finally:
        _current.clear()
        dist.destroy_process_group()


def rank() -> int:
    """Return this process's number among all that torchrun started; 0 without torchrun."""
    return int(os.environ.get("RANK", "0"))


def local_rank() -> int:
    """Return this process's number among those on this machine."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def started_by_torchrun() -> bool:
    """Return whether torchrun started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def restart_count() -> int:
    """Return how often torchrun has restarted the processes after one ended."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))
