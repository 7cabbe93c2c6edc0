"""Leak alarms: what a training set must not know is looked for by name, before a model that was fitted on it is registered.

A leak comes in by one of two ways: the spine's SQL works a request input out of other rows than the one at hand (`spine.py`), or
a view's table says what its definition does not (`stored.py`), or its definition looks too far (`flips.py`). The others look at
what such a leak does: to one feature or a score (`judged.py`), to labels at random (`null_test.py`), to a second retrieval
(`repeat.py`). `find.py` looks for all of them.
"""
