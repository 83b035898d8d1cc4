"""Secrets are there before they are needed, fetched once for all, and seen by nobody."""

from __future__ import annotations

import asyncio
import logging
import math

import pytest

from gateway.contract import Credential
from gateway.credentials import NoCredential, source
from gateway.credentials.keeping import FETCH_TIMEOUT, FORCE_AGAIN, FetchError, Fresh, Kept

HOUR = 3600.0
SECRET = "swordfish-0123456789"


class Origin:
    """Hands out t1, t2, ... each good for `lifetime`; refuses with `failing`; waits for `gate`."""

    def __init__(self, lifetime: float = HOUR) -> None:
        self.lifetime = lifetime
        self.failing: Exception | None = None
        self.count = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def fetch(self) -> Fresh:
        self.count += 1
        token = f"t{self.count}"
        await self.gate.wait()
        if self.failing is not None:
            raise self.failing
        return Fresh(Credential("bearer", token=token), self.lifetime)


async def advance(seconds: float) -> None:
    asyncio.get_running_loop().advance(seconds)
    for _ in range(5):
        await asyncio.sleep(0)


def refused(kept: Kept) -> str:
    with pytest.raises(NoCredential) as caught:
        kept.current()
    return caught.value.message


def test_a_key_is_handed_out_as_it_was_given(run):
    kept = source("key", {"api_key": SECRET})

    async def main():
        await kept.start()
        assert await kept.refresh() is False
        await kept.close()

    run(main())
    assert kept.current() == Credential("key", token=SECRET)
    assert kept.current() is kept.current()


@pytest.mark.parametrize(("kind", "options"), [("none", {"api_key": SECRET}), ("key", {}), ("key", {"api_key": None})])
def test_without_a_key_the_credential_is_empty(kind, options):
    assert source(kind, options).current() == Credential()


def test_an_unknown_kind_is_named_beside_the_known_ones():
    with pytest.raises(ValueError, match="'azure-cli'; there are none, key, aws, google, entra"):
        source("azure-cli", {})


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("key", {"api_key": SECRET}),
        ("aws", {"access_key_id": SECRET, "secret_access_key": SECRET, "session_token": SECRET}),
        ("google", {"credentials": {"private_key": SECRET}}),
        ("entra", {"entra": {"tenant_id": "t", "client_id": "c", "client_secret": SECRET}}),
    ],
)
def test_no_repr_tells_a_secret(kind, options):
    kept = source(kind, options)
    assert SECRET not in repr(kept) + repr(vars(kept) if hasattr(kept, "__dict__") else "")


def test_before_the_first_fetch_the_error_says_so():
    error = refused(Kept("Entra", Origin().fetch))
    assert error == "The gateway has no valid Entra credential: it has not been fetched yet."


def test_the_error_is_an_upstream_auth_error_that_was_not_sent():
    error = NoCredential("x")
    assert (error.status, error.code, error.cause, error.sent) == (502, "upstream_auth_error", "auth", False)


def test_the_secret_is_renewed_before_it_expires(run):
    async def main():
        origin = Origin()
        kept = Kept("test", origin.fetch)
        await kept.start()
        await advance(HOUR * 0.8)  # the jitter begins at 0.9 of the way to five minutes before the end
        assert kept.current().token == "t1"
        await advance(HOUR * 0.2 - 300)
        assert kept.current().token == "t2"
        await advance(HOUR - 300)
        assert kept.current().token == "t3"
        await kept.close()

    run(main())


def test_a_short_lived_secret_is_renewed_at_half_its_life(run):
    async def main():
        origin = Origin(lifetime=60)
        kept = Kept("test", origin.fetch)
        await kept.start()
        await advance(26)
        assert origin.count == 1
        await advance(4.1)
        assert kept.current().token == "t2"
        await kept.close()

    run(main())


def test_a_secret_without_an_end_is_fetched_once(run):
    async def main():
        origin = Origin(lifetime=math.inf)
        kept = Kept("test", origin.fetch)
        await kept.start()
        await advance(1000 * HOUR)
        assert (origin.count, kept.current().token) == (1, "t1")
        await kept.close()

    run(main())


def test_the_old_secret_is_read_while_a_new_one_is_fetched(run):
    async def main():
        origin = Origin()
        kept = Kept("test", origin.fetch)
        await kept.start()
        origin.gate.clear()
        await advance(HOUR - 300)
        assert (origin.count, kept.current().token) == (2, "t1")
        origin.gate.set()
        await advance(0)
        assert kept.current().token == "t2"
        await kept.close()

    run(main())


def test_fifty_refreshes_at_once_are_one_fetch(run):
    async def main():
        origin = Origin()
        kept = Kept("test", origin.fetch)
        await kept.start()
        origin.gate.clear()
        waiting = [asyncio.create_task(kept.refresh()) for _ in range(50)]
        await advance(0)
        origin.gate.set()
        assert await asyncio.gather(*waiting) == [True] * 50
        assert (origin.count, kept.current().token) == (2, "t2")
        await kept.close()

    run(main())


def test_refreshes_in_a_row_do_not_ask_again_at_once(run):
    async def main():
        origin = Origin()
        kept = Kept("test", origin.fetch)
        await kept.start()
        assert [await kept.refresh() for _ in range(20)] == [True] * 20
        assert origin.count == 2
        await advance(FORCE_AGAIN)
        assert await kept.refresh()
        assert origin.count == 3
        await kept.close()

    run(main())


def test_a_forced_refresh_puts_off_the_next_one(run):
    async def main():
        origin = Origin()
        kept = Kept("test", origin.fetch)
        await kept.start()
        await advance(HOUR / 2)
        await kept.refresh()
        await advance(HOUR / 2 - 300)
        assert origin.count == 2
        await advance(HOUR / 2)
        assert origin.count == 3
        await kept.close()

    run(main())


def test_a_caller_that_goes_away_does_not_end_the_fetch_of_the_others(run):
    async def main():
        origin = Origin()
        kept = Kept("test", origin.fetch)
        await kept.start()
        origin.gate.clear()
        first, second = asyncio.create_task(kept.refresh()), asyncio.create_task(kept.refresh())
        await advance(0)
        first.cancel()
        await advance(0)
        origin.gate.set()
        assert await second is True
        assert first.cancelled()
        await kept.close()

    run(main())


def test_a_failed_start_is_kept_and_mended_in_the_background(run):
    async def main():
        origin = Origin()
        origin.failing = FetchError("the token endpoint answered 503")
        kept = Kept("Entra", origin.fetch)
        await kept.start()
        assert refused(kept) == "The gateway has no valid Entra credential: the token endpoint answered 503."
        origin.failing = None
        await advance(1.1)
        assert kept.current().token == "t2"
        await kept.close()

    run(main())


def test_failing_on_is_asked_about_once_a_minute_and_not_more(run):
    async def main():
        origin = Origin()
        origin.failing = FetchError("no")
        kept = Kept("test", origin.fetch)
        await kept.start()
        for _ in range(3600):
            await advance(1)
        # 1 + 2 + 4 + ... + 32 seconds, then 60 to 120 times an hour
        assert 60 <= origin.count <= 130
        await kept.close()

    run(main())


def test_a_failed_renewal_leaves_the_old_secret_until_its_end(run):
    async def main():
        origin = Origin()
        kept = Kept("test", origin.fetch)
        await kept.start()
        origin.failing = FetchError("the token endpoint answered 500")
        assert await kept.refresh() is False
        assert await kept.refresh() is False
        await advance(HOUR - 1)
        assert kept.current().token == "t1"
        await advance(1)
        assert "answered 500" in refused(kept)
        await kept.close()

    run(main())


def test_a_secret_that_is_over_is_refused_even_if_nothing_failed(run):
    async def main():
        origin = Origin()
        kept = Kept("test", origin.fetch)
        await kept.start()
        origin.gate.clear()
        await advance(HOUR)
        assert refused(kept).endswith("it has expired.")
        await kept.close()

    run(main())


def test_a_source_that_never_answers_is_given_up(run):
    async def main():
        origin = Origin()
        origin.gate.clear()
        kept = Kept("test", origin.fetch)
        starting = asyncio.create_task(kept.start())
        await advance(0)
        await advance(FETCH_TIMEOUT)
        await starting
        assert "did not answer within 30 seconds" in refused(kept)
        await kept.close()

    run(main())


def test_a_foreign_exception_is_known_by_its_class_alone(run, caplog):
    async def main():
        origin = Origin()
        origin.failing = KeyError(SECRET)
        kept = Kept("test", origin.fetch)
        await kept.start()
        await kept.close()
        return refused(kept)

    caplog.set_level(logging.DEBUG)
    message = run(main())
    assert "KeyError" in message
    assert "KeyError" in caplog.text
    assert SECRET not in message + caplog.text


@pytest.mark.parametrize("lifetime", [0, -1, math.nan])
def test_what_is_handed_out_too_late_is_not_taken(run, lifetime):
    async def main():
        kept = Kept("test", Origin(lifetime).fetch)
        await kept.start()
        await kept.close()
        return refused(kept)

    assert "clock" in run(main())


@pytest.mark.parametrize("token", ["", "a\r\nx-admin: 1", "pässword", "tab\there"])
def test_what_cannot_be_a_header_is_not_taken(run, token):
    async def fetch():
        return Fresh(Credential("bearer", token=token), HOUR)

    async def main():
        kept = Kept("test", fetch)
        await kept.start()
        await kept.close()
        return refused(kept)

    assert "no secret" in run(main())


def test_after_closing_nothing_is_fetched_and_the_secret_stays(run):
    async def main():
        origin = Origin()
        kept = Kept("test", origin.fetch)
        await kept.start()
        await kept.close()
        await advance(HOUR - 300)
        assert await kept.refresh() is False
        assert (origin.count, kept.current().token) == (1, "t1")

    run(main())


def test_closing_in_the_middle_of_a_fetch_answers_those_who_wait(run):
    async def main():
        origin = Origin()
        kept = Kept("test", origin.fetch)
        await kept.start()
        origin.gate.clear()
        waiting = asyncio.create_task(kept.refresh())
        await advance(0)
        await kept.close()
        assert await waiting is False
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(main())


def test_closing_what_was_never_started_is_harmless(run):
    run(Kept("test", Origin().fetch).close())
