"""A stand-in for a card, for machines without one: see `card`."""
