"""Prove that what was served is what training would contain: sample, expect, compare, name the cause, judge, gate."""
