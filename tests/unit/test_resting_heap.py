"""Memory goes back once in a pause, and not while anything happens."""

from __future__ import annotations

import gc
import weakref

from gateway.resting_heap import MOST_YOUNG, PATIENCE, RestingHeap


def test_once_in_each_pause() -> None:
    heap = RestingHeap()
    assert [heap.look(1) for _ in range(PATIENCE + 3)] == [False] * PATIENCE + [True, False, False]
    assert not heap.look(2)
    assert [heap.look(2) for _ in range(PATIENCE)] == [False] * (PATIENCE - 1) + [True]


def test_never_while_it_is_busy() -> None:
    heap = RestingHeap(collect=False)
    assert not any(heap.look(1, busy=True) for _ in range(PATIENCE * 3))
    assert [heap.look(1) for _ in range(PATIENCE)] == [False] * (PATIENCE - 1) + [True]


def test_what_nobody_has_any_more_does_not_pile_up_while_it_is_busy() -> None:
    """As in a door, where collections are rare."""

    class Knot:
        def __init__(self) -> None:
            self.self = self

    before = gc.get_threshold()
    gc.collect()
    gc.set_threshold(1_000_000, 20, 50)
    try:
        heap = RestingHeap()
        knots = [weakref.ref(Knot()) for _ in range(MOST_YOUNG // 8)]
        heap.look(1, busy=True)
        assert all(knot() is not None for knot in knots), "so few can wait"
        knots += [weakref.ref(Knot()) for _ in range(MOST_YOUNG)]
        heap.look(2, busy=True)
        assert not any(knot() is not None for knot in knots)
    finally:
        gc.set_threshold(*before)
