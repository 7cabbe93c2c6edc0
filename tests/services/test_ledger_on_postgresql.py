"""The very tests of tests/materialize/test_ledger.py, with the ledger on PostgreSQL."""

from tests.materialize.conftest import *  # noqa: F403
from tests.materialize.test_ledger import *  # noqa: F403
