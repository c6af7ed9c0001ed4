"""raypipe turns a hospital's unlabelled notes into training data for its own decoder models.

notes -> prompts -> attributions -> masked examples -> training -> evaluation -> report: the folders read like that
sentence. Read `rows.py` first (what a row holds after each step), then `pipeline.py` (the whole graph).
"""

__version__ = "0.1.0"
