"""Memory goes back once in a pause, and not while anything happens."""

from __future__ import annotations

from gateway.resting_heap import PATIENCE, RestingHeap


def test_once_in_each_pause() -> None:
    heap = RestingHeap()
    assert [heap.look(1) for _ in range(PATIENCE + 3)] == [False] * PATIENCE + [True, False, False]
    assert not heap.look(2)
    assert [heap.look(2) for _ in range(PATIENCE)] == [False] * (PATIENCE - 1) + [True]


def test_never_while_it_is_busy() -> None:
    heap = RestingHeap(collect=False)
    assert not any(heap.look(1, busy=True) for _ in range(PATIENCE * 3))
    assert [heap.look(1) for _ in range(PATIENCE)] == [False] * (PATIENCE - 1) + [True]
