"""The ways that clients speak, one module each."""
