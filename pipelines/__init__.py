"""Argo resources, defined with Hera: a module a pipeline. Importing one talks to no cluster."""
