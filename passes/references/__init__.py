"""What the passes that bind references share: which values follow from them, and loops over them."""
