"""What two revisions of a use case's definitions differ in, and what each difference takes before it may be live."""

from lockstep.changes.compare import compare
from lockstep.changes.describe import Definitions, describe
from lockstep.changes.difference import Change, Consequence, Plan, Subject

__all__ = ["Change", "Consequence", "Definitions", "Plan", "Subject", "compare", "describe"]
