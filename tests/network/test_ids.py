"""The arithmetic of ids against what it stands for: which positions are there, for every way to prune."""

import itertools

import numpy as np
import pytest
from numpy.typing import NDArray

from slimline.network.ids import ALWAYS, ChannelIds, Ids


def worlds(ids: ChannelIds, several: list[Ids]) -> list[list[NDArray[np.bool_]]]:
    """For every set of plain ids that may be gone: which positions of some axes are there."""
    plain = sorted({p for axis in several for i in axis.tolist() for p in ids.plain(i)} - set(ids.frozen()))
    found = []
    for size in range(len(plain) + 1):
        for gone in itertools.combinations(plain, size):
            found.append([np.array([ids.plain(i).isdisjoint(gone) for i in axis.tolist()]) for axis in several])
    return found


def test_fresh_ids_go_one_by_one() -> None:
    ids = ChannelIds()
    axis = ids.fresh(3)
    assert len({tuple(w[0]) for w in worlds(ids, [axis])}) == 8


def test_merged_positions_live_and_die_together() -> None:
    ids = ChannelIds()
    a, b, c = ids.fresh(4), ids.fresh(4), ids.fresh(2)
    ids.merge(a, b)
    ids.merge(c, b[1:3])
    found = worlds(ids, [a, b, c])
    assert all((w[0] == w[1]).all() and (w[2] == w[0][1:3]).all() for w in found)
    assert len({tuple(w[0]) for w in found}) == 16


def test_a_conjunction_is_there_when_all_of_it_is() -> None:
    ids = ChannelIds()
    a, b, c = ids.fresh(3).tolist()
    both, nested = ids.every([a, b]), ids.every([ids.every([a, b]), c])
    assert ids.every([a, b]) == both and ids.every([a]) == a and ids.every([]) == ids.every([ALWAYS]) == ALWAYS
    for one, two, three, x, y in (w[0] for w in worlds(ids, [np.array([a, b, c, both, nested])])):
        assert x == (one and two) and y == (one and two and three)
    assert ids.plain(ALWAYS) == frozenset()


def test_a_new_grid_loses_whole_rows_and_columns_and_nothing_else() -> None:
    ids = ChannelIds()
    cells = ids.fresh(6)
    rows, columns = ids.grid(cells, (2, 3), "")
    assert rows is not None and columns is not None and len(rows) == 2 and len(columns) == 3
    seen = set()
    for alive, r, c in worlds(ids, [cells, rows, columns]):
        assert (alive.reshape(2, 3) == r[:, None] & c[None]).all()
        seen.add((*r, *c))
    assert len(seen) == 2**5


def test_a_grid_of_three_axes() -> None:
    ids = ChannelIds()
    cells = ids.fresh(12)
    a, b, c = ids.grid(cells, (2, 3, 2), "")
    assert a is not None and b is not None and c is not None
    for alive, x, y, z in worlds(ids, [cells, a, b, c]):
        assert (alive.reshape(2, 3, 2) == x[:, None, None] & y[None, :, None] & z[None, None]).all()


def check_grid(ids: ChannelIds, cells: Ids, sizes: tuple[int, ...]) -> int:
    """The claim of `ChannelIds.grid`, for every way to prune; returns the number of ways."""
    axes = [
        a if a is not None else np.full(n, ALWAYS) for a, n in zip(ids.grid(cells, sizes, "why"), sizes, strict=True)
    ]
    found = worlds(ids, [cells, *axes])
    for alive, *lines in found:
        expected = np.ones(sizes, bool)
        for axis, line in enumerate(lines):
            expected &= line.reshape([-1 if a == axis else 1 for a in range(len(sizes))])
        assert (alive.reshape(sizes) == expected).all()
    return len(found)


def test_rows_are_found_where_cells_are_rows_already() -> None:
    ids = ChannelIds()
    assert check_grid(ids, np.repeat(ids.fresh(3), 4), (3, 4)) == 8
    assert check_grid(ids, np.tile(ids.fresh(4), 3), (3, 4)) == 16


def test_a_second_grid_refines_the_first() -> None:
    ids = ChannelIds()
    cells = ids.fresh(12)
    check_grid(ids, cells, (3, 4))
    assert check_grid(ids, cells, (3, 2, 2)) > 1


def test_unknown_cells_beside_known_ones_become_alike() -> None:
    """As in a shuffle, where one half comes from the block before and the other from a branch."""
    ids = ChannelIds()
    known = ids.fresh(8)
    check_grid(ids, known, (2, 4))
    assert check_grid(ids, np.concatenate([known[::2], ids.fresh(4)]), (2, 4)) > 1


def test_grids_that_cross_leave_nothing_to_go() -> None:
    ids = ChannelIds()
    cells = ids.fresh(6)
    check_grid(ids, cells, (3, 2))
    assert check_grid(ids, cells, (2, 3)) == 1
    assert all(p in ids.frozen() for i in cells.tolist() for p in ids.plain(i))


@pytest.mark.parametrize("seed", range(60))
def test_whatever_is_asked_of_the_same_ids_holds(seed: int) -> None:
    """Random merges, grids and freezes in a row: every earlier claim still holds at the end."""
    rng = np.random.default_rng(seed)
    ids, claims = ChannelIds(), []
    axes = [ids.fresh(12) for _ in range(2)]
    for _ in range(4):
        kind = rng.integers(3)
        chosen = axes[rng.integers(len(axes))]
        if kind == 0:
            sizes = [(2, 6), (6, 2), (3, 4), (4, 3), (2, 3, 2), (12, 1)][rng.integers(6)]
            lines = ids.grid(chosen, sizes, "why")
            claims.append((chosen, sizes, lines))
        elif kind == 1:
            other = rng.permutation(axes[rng.integers(len(axes))])
            ids.merge(chosen, other)
            claims.append((chosen, None, [other]))
        else:
            ids.freeze([chosen[rng.integers(12) :][:1]], "stays")
    every = [cells for cells, _, _ in claims] + [line for *_, lines in claims for line in lines if line is not None]
    plain = sorted({p for axis in every for i in axis.tolist() for p in ids.plain(i)} - set(ids.frozen()))
    for _ in range(200):
        gone = frozenset(p for p in plain if rng.random() < 0.3)

        def alive(axis: Ids, gone: frozenset[int] = gone) -> NDArray[np.bool_]:
            return np.array([ids.plain(i).isdisjoint(gone) for i in axis.tolist()])

        for cells, sizes, lines in claims:
            if sizes is None:
                assert lines[0] is not None and (alive(cells) == alive(lines[0])).all()
                continue
            expected = np.ones(sizes, bool)
            for axis, line in enumerate(lines):
                if line is not None:
                    expected &= alive(line).reshape([-1 if a == axis else 1 for a in range(len(sizes))])
            assert (alive(cells).reshape(sizes) == expected).all()


def test_reasons_reach_what_a_position_depends_on() -> None:
    ids = ChannelIds()
    cells = ids.fresh(6)
    ids.freeze([cells[:1]], "is the first")
    rows, columns = ids.grid(cells, (2, 3), "why")
    ids.blur(cells[5:], "is the last")
    assert set(ids.frozen().values()) <= {"is the first", "why", "stands beside what cannot be pruned"}
    assert ids.plain(int(cells[0])) <= ids.frozen().keys()
    assert set(ids.inexact()) == set(ids.plain(int(cells[5])))
    assert rows is None or columns is None or len(rows) == 2


def test_axes_of_different_length_are_a_mistake_of_the_caller() -> None:
    ids = ChannelIds()
    with pytest.raises(AssertionError, match="cannot be merged"):
        ids.merge(ids.fresh(3), ids.fresh(4))
