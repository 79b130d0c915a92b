"""The training loop, to be read from top to bottom."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.swa_utils import get_ema_multi_avg_fn

from cetpick.errors import TrainingError
from cetpick.interrupts import held_signals
from cetpick.resume import Checkpoint

Progress = Callable[[str, int, int, Mapping[str, float]], None]
"""Called after each step with what is trained, the step (from 1), the number of steps, and the log of the step."""
Review = Callable[[int, Callable[[], Any]], None]
"""Called before each step with how many were taken, and what gives the averaged network; it may change the recipe."""


class Recipe(Protocol):
    """What a mode brings to the loop; see modes.default and modes.paper.

    Attributes:
        network: to be trained, on the device.
        steps: optimiser steps; their number may change.
        averaging: decay of the moving average of the weights that is kept for inference, 0 for none.
        gradient_norm: gradients are scaled down to this norm.
    """

    network: Any
    steps: int
    averaging: float
    gradient_norm: float

    def optimizer(self) -> tuple[Optimizer, LRScheduler]:
        """The optimiser and its schedule, stepped together."""

    def draw_ahead(self) -> None:
        """Draw the batch of the next loss already, if there is something to gain."""

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        """Draw a batch; return its loss and what the log should know of it."""

    def state_dict(self) -> dict[str, Any]:
        """What the next losses depend on besides the network: random numbers, moving averages."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what state_dict gave."""


def optimise(
    recipe: Recipe,
    progress: Progress | None = None,
    *,
    what: str = "training",
    checkpoint: Checkpoint | None = None,
    review: Review | None = None,
) -> tuple[Any, list[dict[str, float]]]:
    """Take all steps of a recipe; return the averaged network in eval mode and one log entry a step.

    Args:
        recipe: what is trained, and how.
        progress: told of every step.
        what: name of this part of the training.
        checkpoint: where to go on from and to save the state: now and then, at the end, and before Ctrl-C or SIGTERM
            end the program.
        review: may cut it short; after a restart it is told of the same step again, if no other was taken since.

    Raises:
        TrainingError: the loss or its gradient became NaN or infinite.
    """
    optimizer, schedule = recipe.optimizer()
    average = WeightAverage(recipe.network, decay=recipe.averaging)
    log: list[dict[str, float]] = []
    stateful: dict[str, Any] = {"network": recipe.network, "average": average, "recipe": recipe}
    stateful |= {"optimizer": optimizer, "schedule": schedule}
    if checkpoint is not None and (saved := checkpoint.state(what)) is not None:
        for name, part in stateful.items():
            part.load_state_dict(saved[name])
        log += saved["log"]
    recipe.network.train()
    while (step := len(log)) < recipe.steps:
        if review is not None:
            review(step, average.network)
        with held_signals() as stopping:
            loss, entry = recipe.loss(step)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            slope = nn.utils.clip_grad_norm_(recipe.network.parameters(), recipe.gradient_norm)
            optimizer.step()
            schedule.step()
            average.update()
            if step + 1 < recipe.steps:
                recipe.draw_ahead()  # while a GPU is still at work
            # in `default` mode the only time in a step that a GPU is waited for
            value, slope = torch.stack([loss.detach().float(), slope.float()]).tolist()
            if not (math.isfinite(value) and math.isfinite(slope)):
                raise TrainingError(
                    f"the loss became {value}, its gradient {slope}, in step {step + 1} of {what}",
                    cure="train again with another --seed; if it recurs, check the tomogram for extreme values",
                )
            log.append({"step": step + 1, "loss": value, **entry})
            if checkpoint is not None and (stopping or checkpoint.due or step + 1 == recipe.steps):
                checkpoint.save(what, {name: part.state_dict() for name, part in stateful.items()} | {"log": log})
        if progress is not None:
            progress(what, step + 1, recipe.steps, log[-1])
    return average.network(), log


class WeightAverage:
    """Exponential moving average of weights and batch statistics; young averages forget faster."""

    def __init__(self, network: nn.Module, *, decay: float) -> None:
        """Average `network`; with a decay of 0 the average is the latest state."""
        self.decay, self._steps = decay, 0
        self._source = network
        self._latest = {name: value for name, value in network.state_dict().items() if value.is_floating_point()}
        self._state = {name: value.detach().clone() for name, value in self._latest.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Take the network's present state into the average."""
        self._steps += 1
        update = get_ema_multi_avg_fn(min(self.decay, self._steps / (self._steps + 9)))  # type: ignore[no-untyped-call]
        # all at once: a GPU waits longer for each of many small tasks than it works on it
        update([*self._state.values()], [*self._latest.values()], self._steps)

    def state_dict(self) -> dict[str, Any]:
        """The averages, and of how many states they are."""
        return {"steps": self._steps, "state": self._state}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what state_dict gave."""
        self._steps = state["steps"]
        for name, value in self._state.items():
            value.copy_(state["state"][name])

    def network(self) -> Any:
        """A copy of the network with the averaged state, in eval mode."""
        averaged = copy.deepcopy(self._source)
        averaged.load_state_dict(self._source.state_dict() | self._state)
        return averaged.eval()
