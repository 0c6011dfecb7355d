"""Pictures of explanations, for matplotlib (the extra `plot`).

Each function takes `ax`, or makes a figure of its own, and returns the figure; none shows it, and none
touches pyplot's state.  Blue speaks against the explained output, red for it; a scale is symmetric.
"""

from irshap.report.bars import bar, beeswarm, curves, waterfall
from irshap.report.pictures import image, images
from irshap.report.sequences import logo, steps, tokens, tokens_html

__all__ = [
    "bar",
    "beeswarm",
    "curves",
    "image",
    "images",
    "logo",
    "steps",
    "tokens",
    "tokens_html",
    "waterfall",
]
