"""The training step as passes, one a file: what is trained, what is minimized, how it moves."""
