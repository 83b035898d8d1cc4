"""One provider each: pure functions from bytes and values to bytes and values."""
