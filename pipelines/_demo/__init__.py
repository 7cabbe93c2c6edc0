"""`lockstep demo`: the whole loop on this machine, from raw events to a gated promotion and a refused one."""

from pipelines._demo.home import FOLDER, REPORT, run_demo
from pipelines._demo.play import Demo, Scale
from pipelines._demo.summary import TRAINING_PAGE, caught, summary

__all__ = ["FOLDER", "REPORT", "TRAINING_PAGE", "Demo", "Scale", "caught", "run_demo", "summary"]
