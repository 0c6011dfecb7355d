"""Passes in order: what a pass is, pipelines as text, and the manager that runs them."""
