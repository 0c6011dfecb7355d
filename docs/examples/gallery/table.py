"""A table: a network that has learned house prices, and why it says what it says of one house.

The prices follow a rule that we know, so that we see whether attributions find it.

    python docs/examples/gallery/table.py prices.png
"""

import sys

import numpy as np
import onnx
from onnx import numpy_helper, parser

import irshap
from irshap import report

FEATURES = ["rooms", "age", "distance", "garden", "street number"]
random = np.random.default_rng(0)
houses = random.uniform(0, 1, size=(2000, 5)).astype(np.float32)
# a garden is worth more where there are many rooms; the street number is worth nothing
prices = (3 * houses[:, 0] - houses[:, 1] - 2 * houses[:, 2] ** 2 + 2 * houses[:, 0] * houses[:, 3])[:, None]

# two layers, by gradient descent
w = random.normal(size=(5, 32)) * 0.5
v = random.normal(size=(32, 1)) * 0.2
for _ in range(3000):
    h = np.tanh(houses @ w)
    error = (h @ v - prices) / len(houses)
    w, v = w - 0.5 * houses.T @ (error @ v.T * (1 - h**2)), v - 0.5 * h.T @ error

model = parser.parse_model("""<ir_version: 8, opset_import: ["": 17]>
prices (float[N,5] house) => (float[N,1] price) {
    a = MatMul(house, w)
    h = Tanh(a)
    price = MatMul(h, v)
}""")
for name, array in (("w", w), ("v", v)):
    model.graph.initializer.append(numpy_helper.from_array(array.astype(np.float32), name))
onnx.checker.check_model(model)

names = {"features": FEATURES, "classes": ["price"]}
explainer = irshap.compile(model, houses[:50], target=0, names=names).explainer()
explanation = explainer(houses[100:300])

assert np.abs(explanation.completeness_error).max() < 1e-4
mean = dict(zip(FEATURES, np.abs(explanation.values).mean(axis=0), strict=True))
assert max(mean, key=mean.get) == "rooms" and min(mean, key=mean.get) == "street number", mean
report.beeswarm(explanation).savefig(sys.argv[1], dpi=110)
