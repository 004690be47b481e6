"""One file a step, each up and down. A step is never changed once it was released."""
