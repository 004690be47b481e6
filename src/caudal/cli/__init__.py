"""The verbs on a terminal: parse, call, render. No logic of its own."""
