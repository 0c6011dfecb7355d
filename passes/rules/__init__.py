"""Rewrite rules that passes share."""
