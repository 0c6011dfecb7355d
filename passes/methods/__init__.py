"""Attribution methods, one a file: each decides what a pullback becomes."""
