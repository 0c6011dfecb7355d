"""What is attributed, what can be, and how attributions leave a program."""
