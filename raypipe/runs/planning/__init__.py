"""`raypipe plan`: what a job will take, before anything starts. Reads; makes no step and no folder of a run.

sample.py     the notes: counted exactly, some of them read
tokens.py     the tokenizer and the architecture that they are read with
material.py   what the run's own stages make of the sample: masked notes, training rows
work.py       each step that is still to be made: arithmetic, rows and bytes
rates.py      arithmetic a second: stated, or measured here
memory.py     what one GPU must hold
advice.py     what would starve, overflow or not fit, and the setting that helps
estimate.py   all of it together: a figures.Plan, which text.py draws
"""
