"""The console commands, one module each; `pipelines.cli` puts them together."""
