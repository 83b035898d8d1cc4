"""gateway.yaml as types, and every mistake in it with its line."""
