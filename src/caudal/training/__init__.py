"""One loop for every task: steps, precision, schedule, checkpoints. Knows no task or model by name."""
