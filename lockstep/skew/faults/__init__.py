"""One module a fault; `lockstep/skew/fault.py` says how to add one."""
