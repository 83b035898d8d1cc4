"""gateway.limits: buffered bytes are counted, and what has no room is refused."""

from __future__ import annotations

import pytest

from gateway.errors import Overloaded
from gateway.limits import Ledger


def test_bytes_are_taken_up_to_the_limit_and_given_back() -> None:
    ledger = Ledger(10)
    ledger.take(4)
    ledger.take(6)
    assert ledger.held == 10
    ledger.give_back(6)
    ledger.take(5)
    assert ledger.held == 9


def test_what_has_no_room_is_refused_and_not_counted() -> None:
    ledger = Ledger(10)
    ledger.take(10)
    with pytest.raises(Overloaded) as caught:
        ledger.take(1)
    assert caught.value.retry_after == 1
    assert ledger.held == 10
