"""`python -m pipelines …` is `lockstep …`, for a checkout that is not installed."""

import sys

from pipelines.cli import main

sys.exit(main())
