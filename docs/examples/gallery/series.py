"""A time series: a recurrent network over three sensors, and when it was alarmed by which.

python docs/examples/gallery/series.py alarm.png
"""

import sys

import numpy as np
from onnx import numpy_helper, parser

import irshap
from irshap import report

SENSORS = ("pressure", "flow", "temperature")
STEPS = 48

# a GRU of two cells: one gathers pressure that is too high, the other forgets what temperature says
model = parser.parse_model("""<ir_version: 8, opset_import: ["": 17]>
alarm (float[N,48,3] sensors) => (float[N,1] alarm) {
    steps = Transpose<perm=[1, 0, 2]>(sensors)
    all, last = GRU<hidden_size=2>(steps, w, r)
    state = Squeeze(last, first)
    alarm = MatMul(state, v)
}""")
w = np.zeros((1, 6, 3), np.float32)  # gates z, r, h of two cells, by sensor
w[0, 4] = [2.0, 0.0, 0.3]  # what the first cell takes up
w[0, 5] = [0.0, 0.0, 0.5]
r = np.zeros((1, 6, 2), np.float32)
r[0, 0, 0] = 2.0  # once alarmed it stays so
arrays = {"w": w, "r": r, "v": np.array([[3.0], [0.2]], np.float32), "first": np.array([0])}
for name, array in arrays.items():
    model.graph.initializer.append(numpy_helper.from_array(array, name))

random = np.random.default_rng(0)
quiet = (0.03 * random.normal(size=(11, STEPS, 3))).astype(np.float32)
sample, references = quiet[:1].copy(), quiet[1:]
sample[0, 38:44, 0] += 1.5  # pressure rises
sample[0, 10:14, 1] += 1.5  # flow, too, which the network doesn't look at

names = {"features": SENSORS}
explanation = irshap.compile(model, references, target=0, names=names).explainer()(sample)

assert np.abs(explanation.completeness_error).max() < 1e-5
found = np.abs(explanation.values[0])
assert found[38:44, 0].sum() > 0.7 * found.sum() and found[:, 1].max() == 0
report.steps(explanation).savefig(sys.argv[1], dpi=110)
