"""Ray Data callables, one step of a row each, in the order of flow: hold_out, count, Attribute, Mask, Render; Cut
(pretraining); Score. Each is `quiet`: an exception that leaves it holds no note text.

Each takes and gives Arrow tables of one block; the algorithms live in their own packages and know nothing of Ray. A
stage is built once per actor and must hold paths and settings only: weights never travel through the object store.
"""
