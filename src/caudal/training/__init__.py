"""One loop for every task: steps, precision, schedule, checkpoints. Knows no task, model or reader by name."""
