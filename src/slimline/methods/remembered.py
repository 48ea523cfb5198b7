"""What was found out about the last network on some samples, so that the candidates of one search share it."""

from typing import Generic, TypeVar

from slimline.network.network import Network
from slimline.task import Samples

V = TypeVar("V")


class Remembered(Generic[V]):
    """Values by name for one network and its samples at a time; another network or other samples begin anew."""

    def __init__(self) -> None:
        self.key = ("", "")
        self.values: dict[str, V] = {}

    def of(self, network: Network, samples: Samples) -> dict[str, V]:
        """What is known of this network on these samples; to be added to."""
        key = (network.digest(), samples.digest())
        if key != self.key:
            self.key, self.values = key, {}
        return self.values
