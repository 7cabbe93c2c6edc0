"""Feature pipelines that keep what a model is trained on and what it is served in lockstep."""
