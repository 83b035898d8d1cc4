"""Limits and holds that several processes and machines count together, in Redis."""
