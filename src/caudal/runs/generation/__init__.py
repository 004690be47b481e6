"""Generation put together: sizes traced without weights, plans, loaded sessions, and what is told of them."""
