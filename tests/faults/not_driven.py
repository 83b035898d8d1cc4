"""Cases that no test drives, each with the reason. It only shrinks."""

_REDIS = "limits are counted in memory; `state: {store: redis}` is refused by the checker"

NOT_DRIVEN = {
    "LC-016": "a binary upgrade needs a manager that hands one socket to two processes; the parts are tested apart",
    "LC-022": "the wall clock of a process cannot be moved from outside without a clock shim",
    "LC-023": "the gateway does not repeat a request under a corrected clock",
    "LC-024": _REDIS,
    "LC-025": _REDIS,
    "LC-026": _REDIS,
    "LS-002": "5,000 streams with client and provider in one Python process measure that process, not the gateway",
    "LS-007": "a million requests take ten minutes; a matter for a soak run, not for a test",
    "LS-011": "three times the capacity needs a load generator that is faster than the gateway",
    "LS-012": "2,000 connections a second need a load generator that is faster than the gateway",
    "LS-014": "a soak of hours",
    "LS-016": "needs slowhttptest",
}
