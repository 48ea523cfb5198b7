"""The compact students that a search tries beside pruning."""

from slimline.methods.distill.depth_student import DepthStudent
from slimline.methods.distill.own_student import OwnStudent
from slimline.methods.distill.separable_student import SeparableStudent
from slimline.methods.method import Method
from slimline.task import Task


def students(task: Task) -> list[Method]:
    """The user's own first, if there is one. Narrower copies are what pruning finds, with widths that fit."""
    own: list[Method] = [OwnStudent()] if task.student is not None else []
    return [*own, SeparableStudent(), DepthStudent()]
