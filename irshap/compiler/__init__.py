"""A model and references in, one explained model out."""
