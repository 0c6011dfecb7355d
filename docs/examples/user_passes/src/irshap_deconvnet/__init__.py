"""Guided backpropagation for irshap, and a pass that names what can't be told by sight."""
