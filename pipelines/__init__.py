"""Argo resources, defined with Hera, one module a pipeline; rendering, checking and running them; the console command.

A pipeline module exposes `RESOURCES`, a tuple of functions that each return a WorkflowTemplate or a CronWorkflow.
Importing it talks to no cluster.
"""
