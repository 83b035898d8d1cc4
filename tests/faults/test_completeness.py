"""Every case of every file is driven by a test, or stands in the list of those that are not, with the reason."""

from __future__ import annotations

import pytest
from faults import (
    test_auth_cases,
    test_config_cases,
    test_config_process,
    test_header_forwarding,
    test_http1_requests,
    test_json_bodies,
    test_lifecycle,
    test_load,
    test_model_names,
    test_retry_fallback,
    test_ssrf_urls,
    test_upstream_http,
    test_upstream_sse,
)
from faults.casefiles import FAULTS, cases
from faults.known import KNOWN
from faults.not_driven import NOT_DRIVEN

# Modules that drive every case of their file which they have not left out of FILE.
WHOLE = (
    *(test_auth_cases, test_header_forwarding, test_http1_requests, test_json_bodies, test_model_names),
    *(test_retry_fallback, test_upstream_http, test_upstream_sse),
)


def driven() -> set[str]:
    """The ids of all cases that some test drives."""
    ids = {name for module in WHOLE for name in module.FILE}
    ids |= set(test_config_cases.ROWS) | test_config_cases.FILES | test_config_process.DRIVEN
    ids |= {name for name, case in cases("model_names").items() if "place" in case}
    ids |= set(test_lifecycle.DRIVERS) | set(test_load.DRIVERS)
    return ids | {row.id for row in test_ssrf_urls.rows()}


@pytest.mark.skipif(not FAULTS.is_dir(), reason="the fault cases are not beside the project")
def test_no_case_is_forgotten_and_none_is_both_driven_and_listed() -> None:
    every = {name for path in FAULTS.glob("*.yaml") for name in cases(path.stem)}
    assert len(every) == 421
    assert every - driven() - NOT_DRIVEN.keys() == set()
    assert driven() & NOT_DRIVEN.keys() == set()
    assert (driven() | NOT_DRIVEN.keys()) - every == set()
    assert KNOWN.keys() <= driven()


def test_every_reason_says_something() -> None:
    assert all(len(reason) > 10 for reason in (*NOT_DRIVEN.values(), *KNOWN.values()))
