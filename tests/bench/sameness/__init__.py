"""What same_bytes.py is made of: cases, their collector, the comparison, a recorder of what tests compile."""
