"""Pictures of explanations, for matplotlib (the extra `plot`), and pages of them (the extra `report`).

Each function takes `ax`, or makes a figure of its own, and returns the figure; none shows it, and none
touches pyplot's state.  Blue speaks against the explained output, red for it; a scale is symmetric.
"""

from irshap.report.bars import bar, beeswarm, curves, waterfall
from irshap.report.card import facts
from irshap.report.document import page
from irshap.report.kinds import Look
from irshap.report.pictures import image, images
from irshap.report.sequences import logo, steps, tokens, tokens_html

__all__ = [
    "Look",
    "bar",
    "beeswarm",
    "curves",
    "facts",
    "image",
    "images",
    "logo",
    "page",
    "steps",
    "tokens",
    "tokens_html",
    "waterfall",
]
