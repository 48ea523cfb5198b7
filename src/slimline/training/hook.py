"""What a method does while a network trains: masks that grow, fake quantisers, a penalty on the weights."""

from dataclasses import is_dataclass

from torch import Tensor

from slimline.network.network import Network


class Hook:
    """Nothing, at every moment at which something can be done; a method overrides what it needs.

    What a hook does must depend only on the weights, the step and `tensors`: then a run that was killed goes on as if
    nothing had happened. Each process has its hooks, and hands back the weights of the main one. Between steps the
    running statistics of batch norms are those of a process's own share: on several, nothing may follow from them.
    """

    @property
    def identity(self) -> str:
        """A run is only continued with hooks that say the same; one with hyperparameters names them here."""
        return repr(self) if is_dataclass(self) else type(self).__qualname__

    def begin(self, network: Network, steps: int) -> Network:
        """The network that is trained: this one, or one with more in its graph. Called before the first step."""
        return network

    def before_step(self, network: Network, step: int) -> None:
        """Called before the forward pass of a step."""

    def penalty(self, network: Network, step: int) -> Tensor | None:
        """Added to the loss of a step; a scalar with a gradient."""
        return None

    def after_step(self, network: Network, step: int) -> None:
        """Called after the optimiser's update."""

    def end(self, network: Network) -> Network:
        """The network that is handed back. It may hold averaged weights or those of an earlier step."""
        return network

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint has to hold; continuing a run copies the stored values into these tensors."""
        return {}
