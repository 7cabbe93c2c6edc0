"""What somebody new to the on-call rota is asked to declare in the exit test (docs/exit-test.md)."""

TASK = """\
Risk operations asks for a feature view about terminals: how many payments a terminal took and their sum in cents, over the last
6 and 24 hours, every hour. A terminal of which nothing was heard for three days has no answer. The view may be six hours behind
before somebody has to look, and it is theirs."""

__all__ = ["TASK"]
