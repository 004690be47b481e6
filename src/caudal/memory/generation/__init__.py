"""What a generating pipeline holds in each phase, and which levers make it fit. Arithmetic; no torch."""
