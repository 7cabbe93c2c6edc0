"""One feature view a file, named as the view; its owner is in the first line."""
