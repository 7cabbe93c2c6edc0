"""Programs that `benchmarks.serving` runs as processes of their own: the peers that it measures, and what sends the requests."""
