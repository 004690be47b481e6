"""Why a model gave a score: maps of what it looked at, and figures that say whether to believe them.

`target` says which score is asked about, `layers` where class activation maps are taken, `methods` makes the
maps through captum, `baselines` what stands for “nothing there”. `faithfulness` (deletion, insertion),
`randomization` and `energy` test a map; `explanation` holds the records, `explain` runs the whole. Nothing
here reads a file, draws, or knows a model or a task by name.
"""
