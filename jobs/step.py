"""ray job submit --working-dir . -- python jobs/step.py mask --config jobs/configs/demo.yaml

Any command of raypipe by its name, for what the other scripts here do not start.
"""

from raypipe.cli import main

main()
