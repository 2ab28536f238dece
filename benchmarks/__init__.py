"""Measurements. Each bench_*.py runs with one command and writes benchmarks/results/<its name>.{json,md}."""
