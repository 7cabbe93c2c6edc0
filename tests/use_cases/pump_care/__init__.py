"""A second use case, as another team would write it: pumps that wear out, and a model that says which will break down."""

# Letters and digits only: Kubernetes takes no underscore in a name, and Feast no hyphen in a project's.
PROJECT = "pumpcare"
