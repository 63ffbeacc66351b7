"""The newest micrographs come first, and those that have waited longest have their share."""

from __future__ import annotations

import numpy as np
import pytest

from cryopick.pipeline.session_order import NewestFirst

SIZE = 4


def work_through(backlog, *, come, done, steps, start=0):
    """Let micrographs come faster than they are done; give turns and when each was begun.

    In each step `done` micrographs are begun at once and `come` others come.
    """
    order, first, count = NewestFirst(backlog=backlog), 0, start
    begun, old, new = {}, 0, 0
    for step in range(steps):
        count += come
        taken = order.take(first=first, count=count, size=done)
        if taken is None:
            numbers = range(first, min(first + done, count))
            first = numbers.stop
            old += len(numbers)
        else:
            numbers = range(*taken)
            new += len(numbers)
            assert first <= taken[0] < taken[1] <= count
            assert not set(numbers) & set(begun)
            assert len(numbers) <= done
        for number in numbers:
            begun.setdefault(number, step)
    return begun, old, new, first, count


@pytest.mark.parametrize("backlog", [0.1, 0.25, 0.5, 0.9])
def test_those_that_have_waited_longest_get_their_share_and_the_newest_the_rest(backlog):
    _, old, new, _, _ = work_through(backlog, come=8, done=SIZE, steps=400)

    assert old / (old + new) == pytest.approx(backlog, abs=0.01)


def test_with_a_share_of_all_they_are_begun_in_the_order_in_which_they_came():
    begun, _, new, first, _ = work_through(1.0, come=8, done=SIZE, steps=100)

    assert new == 0
    assert list(begun) == list(range(first))


def test_while_more_come_than_are_done_a_new_one_is_begun_at_once_or_waits_for_its_turn():
    begun, *_ = work_through(0.25, come=2, done=SIZE, steps=300, start=1000)

    came = {number: (number - 1000) // 2 for number in range(1000, 1600)}
    waits = np.array([begun[n] - came[n] for n in came if n in begun])
    assert np.median(waits) <= 1
    assert np.mean([n in begun for n in came]) > 0.95


def test_when_no_more_come_all_are_begun_and_each_once():
    order, first, begun = NewestFirst(backlog=0.25), 0, []
    while first < 103:
        taken = order.take(first=first, count=103, size=SIZE)
        if taken is None:
            begun += [n for n in range(first, min(first + SIZE, 103)) if n not in begun]
            first += SIZE
        else:
            assert not set(range(*taken)) & set(begun)
            begun += range(*taken)

    assert sorted(begun) == list(range(103))
    assert begun[4:16] == [99, 100, 101, 102, 95, 96, 97, 98, 91, 92, 93, 94]


def test_what_can_be_begun_at_once_is_begun_in_order():
    order = NewestFirst(backlog=0.25)

    assert [order.take(first=k, count=k + SIZE, size=SIZE) for k in range(0, 40, SIZE)] == [
        None
    ] * 10
