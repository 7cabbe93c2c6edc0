"""Bring feature views online: the ledger of what was computed and written, and the write → verify → commit of an interval."""
