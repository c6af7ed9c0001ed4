"""The functions and classes that Ray Data maps over blocks: one step of a row each.

A stage takes an Arrow table (one block) and returns one. The algorithms live in other packages and know nothing of Ray.
A stage is built once per actor, from paths and settings alone: weights never travel through the object store. Each is
`quiet`: an exception that leaves it holds no note text.
"""
