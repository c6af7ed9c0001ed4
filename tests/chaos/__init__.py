"""Faults on purpose: whole jobs are struck at drawn moments, go on, and must leave what an undisturbed twin left.

`make chaos` draws 100 (`python -m tests.chaos --faults 100 --seed 0`); `make test` draws 10.

    jobs.py      what is disturbed: commands over the small run
    faults.py    what disturbs, and where it strikes
    attempts.py  one attempt at a job, in a process of its own
    twins.py     rows, steps and files beside those of the twin
"""
