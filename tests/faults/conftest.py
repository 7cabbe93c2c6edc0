"""The fixtures of tests/materialize, for what befalls the same view."""

from tests.materialize.conftest import *  # noqa: F403
