"""Functions run at request time and in training alike."""
