"""Functions run at request time and in training alike. One that is published is never edited: a new version is a new name."""
