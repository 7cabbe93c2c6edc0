"""A demo that is asked to end while it serves ends its servers too. (At its begin: `tests/demo/test_demo_interrupted.py`.)"""

import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "demo"))

from demo_process import OTHERS_WARNINGS
from test_demo_interrupted import interrupt

pytestmark = OTHERS_WARNINGS


def test_a_demo_that_is_interrupted_while_it_serves_leaves_no_process_behind(tmp_path: Path) -> None:
    interrupt(tmp_path, signal.SIGTERM, "serve: 1", 3)
