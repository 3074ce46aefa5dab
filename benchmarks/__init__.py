"""Each stage against the straightforward way, in one run: ``python -m benchmarks`` (see README.md)."""
