"""Channel ids: what has to be there so that one position of an axis is there.

Every position of an axis has an id. An id is either *plain*, something that a pruning keeps or removes, or the
*conjunction* of others: position (h, d) of a projection that is split into heads is there as long as head h is there
and place d of every head is there. Two ids are made one where positions live or die together; a plain id becomes a
conjunction where its axis turns out to be a grid, since only whole rows and whole columns can leave a grid.

    alive(id) = all(alive(p) for p in plain(id))

Whatever cannot be expressed that way is made coarser, never finer: what pruning removes is always consistent.
"""

import itertools
import math
from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]
Axes = list[Ids | None]
"""One entry per axis of a tensor: the id of every position, or None when the axis cannot be pruned."""
Alive = Callable[[Ids], NDArray[np.bool_]]
"""Tells for an array of ids which of them survive a pruning."""
ALWAYS = 0
"""The conjunction of nothing: what is there whatever is pruned."""


class ChannelIds:
    """Ids, what they mean and which of them stay."""

    def __init__(self) -> None:
        self._parent: list[int] = [ALWAYS]
        self._parts: dict[int, tuple[int, ...]] = {ALWAYS: ()}
        """By root: the ids whose conjunction it is."""
        self._conjunctions: dict[tuple[int, ...], int] = {}
        self._plain: dict[int, frozenset[int]] = {}
        """What `plain` found since the last change."""
        self._kept: dict[int, str] = {}
        self._inexact: dict[int, str] = {}

    def fresh(self, count: int) -> Ids:
        """New plain ids, related to nothing yet."""
        start = len(self._parent)
        self._parent.extend(range(start, start + count))
        return np.arange(start, start + count)

    def root(self, index: int) -> int:
        """The one id that stands for all that were made one with this."""
        while self._parent[index] != index:
            self._parent[index] = self._parent[self._parent[index]]
            index = self._parent[index]
        return index

    def plain(self, index: int) -> frozenset[int]:
        """Roots of the plain ids whose conjunction this is."""
        root = self.root(index)
        known = self._plain.get(root)
        if known is None:
            parts = self._parts.get(root)
            known = frozenset([root]) if parts is None else frozenset().union(*map(self.plain, parts))
            self._plain[root] = known
        return known

    def every(self, parts: Iterable[int]) -> int:
        """The conjunction of some ids."""
        distinct = tuple(dict.fromkeys(self.root(p) for p in parts if self.plain(p)))
        if not distinct:
            return ALWAYS
        if len(distinct) == 1:
            return distinct[0]
        if distinct not in self._conjunctions:
            (index,) = self.fresh(1).tolist()
            self._parts[index] = distinct
            self._conjunctions[distinct] = index
        return self._conjunctions[distinct]

    def freeze(self, axes: Iterable[Ids | None], reason: str) -> None:
        """These positions stay, and why."""
        for ids in axes:
            for index in [] if ids is None else ids.tolist():
                self._kept.setdefault(index, reason)

    def frozen(self) -> dict[int, str]:
        """Plain ids that stay, with the first reason given for each."""
        return self._reasons(self._kept)

    def blur(self, ids: Ids, reason: str) -> None:
        """Without these positions an operator computes something else than with zeros there, and why."""
        for index in ids.tolist():
            self._inexact.setdefault(index, reason)

    def inexact(self) -> dict[int, str]:
        """Plain ids whose removal is not the same as zeroing them, with the first reason given for each."""
        return self._reasons(self._inexact)

    def _reasons(self, marked: dict[int, str]) -> dict[int, str]:
        found: dict[int, str] = {}
        for index, reason in marked.items():
            for plain in self.plain(index):
                found.setdefault(plain, reason)
        return found

    def merge(self, a: Ids, b: Ids) -> None:
        """The positions of ``a`` and ``b`` live or die together, one by one."""
        assert a.shape == b.shape, f"axes of {a.shape} and {b.shape} positions cannot be merged"
        for x, y in zip(a.tolist(), b.tolist(), strict=True):
            self.unite(x, y)

    def unite(self, a: int, b: int) -> None:
        """Make two ids one: equal conjunctions of the same plain ids."""
        one, other = self.root(a), self.root(b)
        if self.plain(one) == self.plain(other):
            return
        if not self.plain(one) or not self.plain(other):
            self.freeze([np.array([one, other])], "stands beside what cannot be pruned")
            return
        if one in self._parts:
            one, other = other, one
        if one not in self._parts and one not in self.plain(other):
            self._parent[one] = other  # a plain id becomes whatever the other is
            self._plain.clear()
            return
        self._unite_parts(one, other)

    def _unite_parts(self, one: int, other: int) -> None:
        """Two conjunctions: part by part where they are built alike, else all that tells them apart becomes one."""
        left, right = self._parts.get(one, (one,)), self._parts.get(other, (other,))
        if len(left) == len(right):
            for x, y in zip(left, right, strict=True):
                self.unite(x, y)
        a, b = self.plain(one), self.plain(other)
        apart = sorted(a ^ b)
        if apart and not (a - b and b - a):
            apart.append(min(a & b))  # what only one of them needs goes along with something that both need
        for x, y in itertools.pairwise(apart):
            self._parent[self.root(x)] = self.root(y)
        self._plain.clear()

    def grid(self, ids: Ids, sizes: tuple[int, ...], reason: str) -> list[Ids | None]:
        """Ids of the axes of a grid, so that a cell is there exactly if all its rows, columns and so on are.

        Args:
            ids: of the cells, in row-major order; plain ids among them may become conjunctions.
            sizes: of the axes, each at least 1; their product is the number of cells.
            reason: why positions stay whose pattern is none of whole rows and columns.

        Returns:
            One array of ids per axis; None where nothing of the axis can go.
        """
        assert ids.size == math.prod(sizes)
        wide = [axis for axis, size in enumerate(sizes) if size > 1]
        if len(wide) < 2:
            return [ids if axis in wide else None for axis in range(len(sizes))]
        if len(self._conjunct_free(ids)) == ids.size > 1:
            return self._new_grid(ids, sizes)
        for _ in range(len(sizes) + 2):
            lines = self._lines(ids, sizes, reason)
            unlike = self._unlike(ids, sizes, lines)
            if not unlike:
                return [
                    None if not any(axis) else np.array([self.every(parts) for parts in axis], np.int64)
                    for axis in lines
                ]
            for index, parts in unlike:
                self.unite(index, self.every(parts))
        self.freeze([ids], reason)
        return [None] * len(sizes)

    def _conjunct_free(self, ids: Ids) -> set[int]:
        """The roots of ids that are plain, may go and stand for one position only."""
        stay = self.frozen() if self._kept else {}
        roots = [self.root(i) for i in ids.tolist()]
        return {r for r in roots if r not in self._parts and r not in stay}

    def _new_grid(self, ids: Ids, sizes: tuple[int, ...]) -> list[Ids | None]:
        """Nothing is known of any cell: every one becomes the conjunction of new ids."""
        axes = [self.fresh(n) if n > 1 else np.array([ALWAYS]) for n in sizes]
        for index, place in zip(ids.tolist(), np.ndindex(*sizes), strict=True):
            parts = tuple(int(axis[p]) for axis, p in zip(axes, place, strict=True) if axis[p] != ALWAYS)
            self._define(self.root(index), parts)
        return [axis if axis[0] != ALWAYS else None for axis in axes]

    def _define(self, root: int, parts: tuple[int, ...]) -> None:
        if len(parts) == 1:
            self._parent[root] = self.root(parts[0])
        else:
            self._parts[root] = parts
        self._plain.clear()

    def _lines(self, ids: Ids, sizes: tuple[int, ...], reason: str) -> list[list[list[int]]]:
        """By axis and position: the ids on which all cells of that row, column and so on depend."""
        lines: list[list[list[int]]] = [[[] for _ in range(n)] for n in sizes]
        places: dict[int, list[int]] = {}
        for cell, index in enumerate(ids.tolist()):
            for plain in sorted(self.plain(index)):
                places.setdefault(plain, []).append(cell)
        stay, free = self.frozen(), dict[int, int]()
        shared: dict[tuple[int, tuple[int, ...]], int] = {}
        for plain, cells in places.items():
            if plain in stay:
                continue  # it is there whatever is pruned
            if len(cells) == 1 and self.plain(int(ids[cells[0]])) == {plain}:
                free[cells[0]] = plain
                continue
            spans = [np.unique(c) for c in np.unravel_index(cells, sizes)]
            if math.prod(map(len, spans)) != len(cells):
                self.freeze([np.array([plain])], reason)
                continue
            part = [axis for axis, span in enumerate(spans) if len(span) < sizes[axis]] or [0]
            keys = [(axis, tuple(spans[axis].tolist())) for axis in part]
            if len(part) > 1:
                parts = [shared.setdefault(key, int(self.fresh(1)[0])) for key in keys]
                self._define(plain, tuple(parts))
            else:
                parts = [plain]
            for (axis, span), new in zip(keys, parts, strict=True):
                for position in span:
                    lines[axis][position].append(new)
        self._free_cells(lines, sizes, free)
        return [[list(dict.fromkeys(parts)) for parts in axis] for axis in lines]

    def _free_cells(self, lines: list[list[list[int]]], sizes: tuple[int, ...], free: dict[int, int]) -> None:
        """Cells of which nothing is known become what their row, column and so on are."""
        if not free:
            return
        unknown = np.zeros(math.prod(sizes), bool)
        unknown[list(free)] = True
        grid = unknown.reshape(sizes)
        for axis, size in enumerate(sizes):
            alone = np.asarray(np.moveaxis(grid, axis, 0).reshape(size, -1).all(1))
            for position in range(size):
                if not lines[axis][position] and alone[position] and size > 1:
                    lines[axis][position].append(int(self.fresh(1)[0]))
        for cell, plain in free.items():
            place = np.unravel_index(cell, sizes)
            parts = [p for axis, position in enumerate(place) for p in lines[axis][int(position)]]
            if parts:
                self._define(plain, tuple(dict.fromkeys(parts)))
            else:
                self.freeze([np.array([plain])], "stands beside what cannot be pruned")

    def _unlike(
        self, ids: Ids, sizes: tuple[int, ...], lines: list[list[list[int]]]
    ) -> list[tuple[int, tuple[int, ...]]]:
        """Cells that do not depend on exactly what their row, column and so on depend on, and on what they should."""
        stay, found = set(self.frozen()), list[tuple[int, tuple[int, ...]]]()
        for index, place in zip(ids.tolist(), np.ndindex(*sizes), strict=True):
            parts = tuple(p for axis, position in enumerate(place) for p in lines[axis][position])
            wanted = frozenset().union(*map(self.plain, parts)) - stay
            if self.plain(index) - stay != wanted:
                found.append((index, parts))
        return found
