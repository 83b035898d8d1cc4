"""How fast the gateway is, beside what else could stand in its place: `python -m benchmarks --help`."""
