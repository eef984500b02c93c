"""Several processes that train one model together, as torchrun starts them.

Each has the whole model and takes its share of every batch; after each step all have the same
weights, buffers and losses, so one of them writes for all. Batch normalisation looks at a process's
own share; its running statistics are averaged over the processes.
"""

import itertools
import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous

from hundredfold.support.errors import UserError, first_line
from hundredfold.support.text import plural


@dataclass(frozen=True)
class Processes:
    """This process among those that train together; one alone by default."""

    rank: int = 0
    """0 for the one that writes and shows."""
    size: int = 1
    launch: str = ""
    """Name of what torchrun started, the same in its later tries."""

    def share(self, batch: slice) -> slice:
        """Return which places of a batch are this process's.

        All of a batch that has not two pictures for each: then all do the same.
        """
        if batch.stop - batch.start < 2 * self.size:
            return batch
        return slice(batch.start + self.rank, batch.stop, self.size)

    def average(self, model: nn.Module, loss: Tensor, weight: Tensor | float) -> Tensor:
        """Make gradients and floating-point buffers of all processes their weighted mean.

        Args:
            model: with the gradients of this process's share.
            loss: of its share, 0-dimensional.
            weight: of its share: what the loss was divided by.

        Returns:
            The loss of the whole batch, 0-dimensional.

        Raises:
            UserError: another process has ended.
        """
        if self.size == 1:
            return loss
        parts = [w.grad for w in model.parameters() if w.grad is not None]
        parts += [buffer for buffer in model.buffers() if buffer.is_floating_point()]
        flat = torch.cat(
            [loss.view(1), torch.ones_like(loss).view(1), *(p.flatten() for p in parts)]
        )
        flat *= weight
        self._reduce(flat)
        flat /= flat[1].clone()
        for part, mean in zip(parts, flat[2:].split([part.numel() for part in parts]), strict=True):
            part.copy_(mean.view_as(part))
        return flat[0].clone()

    def add(self, values: Tensor) -> None:
        """Make a tensor on the CPU the sum of all processes' tensors, in place."""
        if self.size > 1:
            self._reduce(values)

    def spread(self, model: nn.Module) -> None:
        """Give all processes the first one's weights and buffers: CPUs may round differently."""
        if self.size == 1:
            return
        for value in model.state_dict().values():
            sent = value.contiguous()
            with _lost():
                dist.broadcast(sent, 0)
            value.copy_(sent)

    def agree(self, number: int) -> int:
        """Return the largest of the processes' numbers."""
        if self.size == 1:
            return number
        largest = torch.tensor(number)
        self._reduce(largest, dist.ReduceOp.MAX)
        return int(largest)

    def same(self, make: Callable[[], str]) -> str:
        """Return what the first process makes, in all."""
        made = [make() if self.rank == 0 else ""]
        if self.size > 1:
            with _lost():
                dist.broadcast_object_list(made)
        return made[0]

    def wait(self) -> None:
        """Wait until all processes are here."""
        self.agree(0)

    @contextmanager
    def first_alone(self) -> Iterator[None]:
        """Let the first process do what is within, such as fetching, before the others do."""
        if self.rank:
            self.wait()
        yield
        if not self.rank:
            self.wait()

    def _reduce(self, values: Tensor, how: dist.ReduceOp.RedOpType = dist.ReduceOp.SUM) -> None:
        with _lost():
            dist.all_reduce(values, how)


@contextmanager
def _lost() -> Iterator[None]:
    """Say so where another process has ended.

    Raises:
        UserError: in place of what torch raises then.
    """
    try:
        yield
    except RuntimeError as error:
        raise UserError(
            f"Another process of this training has ended, and so does this one "
            f"({first_line(error)}). Where a run has begun, start as many with `resume RUN` in "
            "place of `train` to go on."
        ) from error


ALONE = Processes()
PATIENCE = timedelta(hours=2)
"""To wait for a process that reads data, or measures, before it is given up."""
_joined = itertools.count()
_current: list[Processes] = []
"""The processes that this process has joined, if any."""


@contextmanager
def joined() -> Iterator[Processes]:
    """Join the processes that torchrun started, for as long as the block lasts.

    By gloo on CPUs and NCCL on GPUs. Alone where there are none; within another such block, its
    processes.

    Raises:
        UserError: they are not to be found.
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
        # torchrun keeps its store when it starts anew: the addresses of the dead are still in it.
        store = dist.PrefixStore(f"{tries()}-{next(_joined)}", store)  # type: ignore[attr-defined]
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if cuda else "gloo",
            store=store,
            rank=processes.rank,
            world_size=processes.size,
            timeout=PATIENCE,
        )
    except (RuntimeError, ValueError) as error:
        others = plural(processes.size - 1, "other process")
        raise UserError(
            f"Cannot join {others}: {first_line(error)}. All are started by "
            "torchrun --nproc-per-node=N -m hundredfold train ..."
        ) from error
    _current.append(processes)
    try:
        yield processes
    finally:
        _current.clear()
        dist.destroy_process_group()


def rank() -> int:
    """Return this process's number among all that torchrun started; 0 where it did not."""
    return int(os.environ.get("RANK", "0"))


def local_rank() -> int:
    """Return this process's number among those of this machine."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def below_torchrun() -> bool:
    """Return whether torchrun started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def tries() -> int:
    """Return how often torchrun has started this anew after a process ended."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))
