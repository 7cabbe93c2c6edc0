"""Serve a model with the features its contract names: transformer, predictor, and the log of what was served."""
