"""Stand-ins and helpers that tests and benchmarks share."""
