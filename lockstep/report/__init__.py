"""What pages for people are made of: the frame and its style, how numbers are written, where the parts of charts stand."""
