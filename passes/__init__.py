"""Passes: functions from Graph to Graph, one a file, each named as its file."""
