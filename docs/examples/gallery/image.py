"""An image: what each pixel of a digit adds to the class that the network predicts, and to its rivals.

python docs/examples/gallery/image.py digits.png
"""

import sys

import numpy as np

import irshap
from irshap import demo, report

images, labels = demo.digits()  # f32 [360, 1, 8, 8]
compiled = irshap.compile(demo.model_path(), demo.references_path(), target="top-3")
explanation = compiled.explainer()(images[[10, 23, 31, 48]])

# attributions sum to f(x) - base, for each of the three classes
assert np.abs(explanation.completeness_error).max() < 1e-5
report.images(explanation).savefig(sys.argv[1], dpi=110)
