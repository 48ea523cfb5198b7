"""The compact students that a search tries beside pruning, and the factorisations that it tries like them."""

from slimline.methods.distill.depth_student import DepthStudent
from slimline.methods.distill.own_student import OwnStudent
from slimline.methods.distill.separable_student import SeparableStudent
from slimline.methods.factorize.tucker import FactorizeTucker
from slimline.methods.factorize.whitened import FactorizeWhitened
from slimline.methods.method import Method
from slimline.task import Task

Factorization = FactorizeTucker | FactorizeWhitened
FACTORIZATIONS: tuple[Factorization, ...] = (FactorizeWhitened(budget=0.5), FactorizeTucker(budget=0.5))
"""Where latency counts, only layers that a race finds faster are factorised."""


def students(task: Task) -> list[Method]:
    """The user's own first, if there is one. Narrower copies are what pruning finds, with widths that fit."""
    own: list[Method] = [OwnStudent()] if task.student is not None else []
    return [*own, SeparableStudent(), DepthStudent()]
