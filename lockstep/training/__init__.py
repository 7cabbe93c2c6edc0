"""Training sets, models and their registry; the contract is compiled here and never edited after."""

import os

# MLflow reports usage over the network from the moment it is imported; set before any module here imports it.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
# Its bars are no progress of ours: it draws one for each file that it copies.
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
