"""Which students a search tries, and in which order."""

from dataclasses import replace

from slimline.methods.distill.depth_student import DepthStudent
from slimline.methods.distill.own_student import OwnStudent
from slimline.methods.distill.separable_student import SeparableStudent
from slimline.search.students import students
from tests.toys import toy, toy_task


def test_the_users_own_comes_first_and_only_when_there_is_one() -> None:
    task = replace(toy_task(), student=None)
    assert [type(s) for s in students(task)] == [SeparableStudent, DepthStudent]
    assert [type(s) for s in students(replace(task, student=toy()))] == [OwnStudent, SeparableStudent, DepthStudent]
