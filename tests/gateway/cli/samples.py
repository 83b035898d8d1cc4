"""A configuration with something of everything, and one full of mistakes."""

from __future__ import annotations

GOOD = """
version: 1
providers:
  p: {type: openai, base_url: "http://127.0.0.1:9/v1", api_key: {env: SOME_KEY}}
deployments:
  a: {provider: p, model: model-a}
  wild/*: {provider: p, model: "*"}
adapters:
  cold: {deployment: a, set: {temperature: 0}}
routings:
  r: {strategy: priority, targets: [a], fallback: [cold]}
"""
BAD = "version: 1\nproviders: {p: {type: opnai}}\ndeployments: {a: {provider: q, model: m}}\nservr: {}\n"
