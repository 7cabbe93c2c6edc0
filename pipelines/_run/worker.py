"""`python -m pipelines._run.worker DESCRIPTOR`: run one pod after the other, as they come over a socket, until that is closed."""

import json
import os
import sys
from dataclasses import asdict
from multiprocessing.connection import Connection
from pathlib import Path

from lockstep.local.signals import ending_on_signals
from pipelines._run.pod import Pod, run_script


def main(descriptor: int) -> None:
    """Answer each pod with how it ended."""
    # what a step starts does not hold our end open once we are gone
    os.set_inheritable(descriptor, False)
    with ending_on_signals(), Connection(descriptor) as connection:
        while True:
            try:
                given = json.loads(connection.recv_bytes())
            except EOFError:
                return
            pod = Pod(**given | {"folder": Path(given["folder"]), "log": Path(given["log"])})
            connection.send_bytes(json.dumps(asdict(run_script(pod))).encode())


if __name__ == "__main__":
    main(int(sys.argv[1]))
