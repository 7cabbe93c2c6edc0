"""One script a published figure: `python -m benchmarks.NAME [--quick] [--json FILE]`."""
