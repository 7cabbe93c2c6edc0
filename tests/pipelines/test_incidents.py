"""What an incident of the exit test is made of: whom a deployment reaches, what is drawn, and a registry of its own."""

import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from small_contract import CONTRACT

from lockstep.clock import to_micros
from lockstep.errors import BadInput
from lockstep.parity.cause import Cause
from lockstep.settings import Settings
from lockstep.skew.fault import Fault
from pipelines._exit_test.home import copy_registry, new_home, opened
from pipelines._exit_test.incident import Incident, choose, tried_faults
from pipelines._exit_test.measure import Measured

START = datetime(2018, 6, 20, tzinfo=UTC)
TIMES = to_micros(START) + np.arange(72 * 60) * 60_000_000
