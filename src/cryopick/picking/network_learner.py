"""One step of learning after the other, with a state that can be kept and taken up again.

A batch is cut into small parts whose gradients are made on one core each and added in order, so
that what is learned does not depend on the number of threads.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryopick.picking.network import PickNetwork

__all__ = ["DECAY", "Learner", "LearnerState", "one_core"]

_PART = 2  # windows whose gradient is made at once on the CPU
DECAY = 1e-4  # of the weights, per step and rate of learning
_CLIP = 1.0  # norm of the gradient


@dataclass(frozen=True, kw_only=True)
class LearnerState:
    """All that learning goes on from."""

    step: int  # steps done
    arrays: Mapping[str, NDArray[np.floating]]  # network.NAME; mean.NAME and square.NAME of AdamW
    random: Mapping[str, Any]  # state of the generator, as JSON takes it


@contextmanager
def one_core() -> Iterator[None]:
    """Compute on one core, so that results do not depend on how many there are."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class Learner:
    """A network that learns. Use as a context manager, inside `one_core`.

    Parameters
    ----------
    network
        To begin from; it is left as it is.
    generator
        Source of randomness, kept with the state.
    threads
        To make gradients with, on the CPU.
    decay
        Of the weights: each step takes rate times decay of them (Loshchilov and Hutter, 2019).
    """

    def __init__(
        self,
        network: PickNetwork,
        generator: np.random.Generator,
        *,
        threads: int,
        decay: float = DECAY,
    ) -> None:
        self.network = copy.deepcopy(network).train()
        self.generator = generator
        self.step = 0
        self._parameters = dict(self.network.named_parameters())
        self._optimiser = torch.optim.AdamW(self._parameters.values(), weight_decay=decay)
        self._pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))

    def __enter__(self) -> Learner:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return self.network.prior.device

    def learn(self, images: Tensor, risk: Callable[[Tensor], Tensor], *, rate: float) -> float:
        """Take one step of AdamW.

        Parameters
        ----------
        images
            (b, y, x), on the device of the network.
        risk
            Of the network's answer to all of them.
        rate
            Of learning.

        Returns
        -------
        float
            The risk before the step.
        """
        size = _PART if images.device.type == "cpu" else len(images)
        parts = torch.split(images, size)
        answers = list(self._pool.map(self.network, parts))
        answer = torch.cat(answers).detach().requires_grad_()
        loss = risk(answer)
        (back,) = torch.autograd.grad(loss, answer)
        gradients = self._pool.map(self._gradients, answers, torch.split(back, size))
        for parameter, summands in zip(
            self._parameters.values(), zip(*gradients, strict=True), strict=True
        ):
            parameter.grad = torch.stack(summands).sum(0)
        torch.nn.utils.clip_grad_norm_(self._parameters.values(), _CLIP)
        for group in self._optimiser.param_groups:
            group["lr"] = rate
        self._optimiser.step()
        self.step += 1
        return loss.item()

    def state(self) -> LearnerState:
        """Copy the state."""
        arrays = {f"network.{n}": a.copy() for n, a in self.network.arrays().items()}
        for name, parameter in self._parameters.items():
            of_one = self._optimiser.state[parameter]
            arrays[f"mean.{name}"] = of_one["exp_avg"].detach().cpu().numpy().copy()
            arrays[f"square.{name}"] = of_one["exp_avg_sq"].detach().cpu().numpy().copy()
        return LearnerState(
            step=self.step, arrays=arrays, random=self.generator.bit_generator.state
        )

    def take_up(self, state: LearnerState) -> None:
        """Go on from a state.

        Raises
        ------
        KeyError, RuntimeError, ValueError
            If it is the state of something else.
        """
        prefix = "network."
        arrays = state.arrays
        own = {n.removeprefix(prefix): a for n, a in arrays.items() if n.startswith(prefix)}
        self.network.load_arrays(own)
        moments = {
            number: {
                "step": torch.tensor(float(state.step)),
                "exp_avg": torch.from_numpy(np.array(arrays[f"mean.{name}"])),
                "exp_avg_sq": torch.from_numpy(np.array(arrays[f"square.{name}"])),
            }
            for number, name in enumerate(self._parameters)
        }
        groups = self._optimiser.state_dict()["param_groups"]
        self._optimiser.load_state_dict({"state": moments, "param_groups": groups})
        self.generator.bit_generator.state = dict(state.random)
        self.step = state.step

    def _gradients(self, answer: Tensor, back: Tensor) -> tuple[Tensor, ...]:
        return torch.autograd.grad(answer, list(self._parameters.values()), back)
