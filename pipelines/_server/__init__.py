"""Argo's server: submitting a workflow, following it, listing runs."""
