"""A use case with as many features as verifying is asked to hold: its definitions, and a world in which it was served."""

PROJECT = "benchmark"
