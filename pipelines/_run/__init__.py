"""Run a WorkflowTemplate on this machine as Argo would: who runs what, when, and what becomes of it."""
