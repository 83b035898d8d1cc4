"""The verbs of the command line and the modules that they are in."""

from __future__ import annotations

VERBS = {
    "serve": "run the gateway",
    "check": "report every mistake in a configuration",
    "explain": "show what a request would become",
    "models": "list the models that clients may ask for",
    "config": "show the configuration that a file comes to",
    "schema": "print the JSON Schema of gateway.yaml",
    "import": "turn a LiteLLM configuration into a gateway.yaml",
    "keys": "make or hash a client key",
    "healthcheck": "ask a running gateway whether it is ready",
    "demo": "run the gateway in front of embedded demo providers",
    "completion": "print the completion script for a shell",
    "version": "print the version",
}
_OTHER_NAMES = {"import": "importing", "config": "configuration", "version": ""}


def module_of(verb: str) -> str:
    """The module with the verb's `parser` and `run`; empty for one that needs none."""
    name = _OTHER_NAMES.get(verb, verb)
    return f"gateway.cli.{name}" if name else ""
