"""A rendered WorkflowTemplate as data: its templates, what they call, its little languages, its parameters."""
