"""Explaining against other tools: the systems, the processes that run them, and the page of results."""
