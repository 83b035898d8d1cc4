"""Cases that no test of this folder drives, each with the reason. It only shrinks."""

NOT_DRIVEN = {
    "LC-016": "driven in tests/e2e/test_workers.py, by name",
    "LC-022": "driven in tests/e2e/test_lifecycle.py, by name",
    "LS-002": "driven in tests/soak/test_streams.py",
    "LS-007": "a million requests take ten minutes; a matter for a soak run, not for a test",
    "LS-011": "three times the capacity needs a load generator that is faster than the gateway",
    "LS-012": "2,000 connections a second need a load generator that is faster than the gateway",
    "LS-014": "a soak of hours",
    "LS-016": "needs slowhttptest",
}
