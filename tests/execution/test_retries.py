from __future__ import annotations

from cryopick.execution.retries import Attempt, RetryBook, killed_error


def died_on(host: str) -> Attempt:
    return Attempt(host=host, reason="its worker died")


def test_an_item_is_quarantined_after_two_hosts_or_three_times_on_one() -> None:
    book = RetryBook()
    states = []

    for item, host in [(1, "a"), (1, "a"), (1, "a"), (2, "a"), (2, "b"), (3, "b")]:
        book.note(item, died_on(host))
        states.append((item, book.is_quarantined(item)))

    assert states == [(1, False), (1, False), (1, True), (2, False), (2, True), (3, False)]


def test_a_host_is_drained_for_items_that_are_not_to_blame_themselves() -> None:
    book = RetryBook()

    for item in range(4):
        book.note(item, died_on("a"))
    assert book.failing_hosts() == ()
    book.note(4, died_on("a"))
    assert book.failing_hosts() == ("a",)
    book.note(4, died_on("b"))  # it fails everywhere: the item's fault
    assert book.failing_hosts() == ()


def test_the_reason_of_a_quarantine_names_each_host_once() -> None:
    book = RetryBook()
    for host in ("a", "a", "b"):
        book.note(0, died_on(host))

    assert str(killed_error(book.attempts(0))) == (
        "this item must be worked on without the death of a worker; got 3 attempts that failed: "
        "its worker died on a, its worker died on b. Look at the file, or give each worker more "
        "memory, and run the same command again."
    )
