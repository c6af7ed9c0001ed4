"""What can be wrong with a run, before anything starts. Reads; makes no step.

check.py         all of it at once: `check` refuses, `examine` (`raypipe check`) also looks closer
of_settings.py   names in the config that other rooms know: strategies, methods, arms, placeholders
of_tables.py     notes, labels and tasks
of_model.py      the model's layers and context; its tokenizer against the tasks
survey.py        what stops no run, but may spoil it
check_report.py  what was read, as a table of tasks; folded.py: what many tasks share is told once
"""
