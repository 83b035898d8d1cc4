"""A LiteLLM proxy's configuration to a gateway.yaml, with an account of what became of every field."""
