"""Measures of attributions."""
