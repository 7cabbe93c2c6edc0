"""One feature view a file; its owner is in the first line.

Every view has three tags: `domain`, whose business it describes; `pii`, whether its values tell where or who somebody is;
`tier`, what happens while it is late: 1 stops a model, 2 makes one worse, 3 is noticed by people only.
"""
