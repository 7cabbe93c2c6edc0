"""What state everything is in: who owns which view, what it serves, how fresh it is."""
