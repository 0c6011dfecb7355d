"""Several inputs: a picture and what is known beside it, explained together.

python docs/examples/gallery/several.py together.png
"""

import sys

import numpy as np
import onnx
from onnx import numpy_helper, parser

import irshap
from irshap import demo, report

# the digits' network, and a layer that adds what is known of who wrote the digit
digits = onnx.load(demo.model_path())
opset = digits.opset_import[0].version
beside = parser.parse_model(f"""<ir_version: {digits.ir_version}, opset_import: ["": {opset}]>
beside (float[N,10] seen, float[N,3] writer) => (float[N,10] answer) {{
    known = MatMul(writer, habits)
    answer = Add(seen, known)
}}""")
habits = np.zeros((3, 10), np.float32)
habits[0, 7] = 2.0  # "from Europe" has a bar in the 7
habits[1, 1] = -1.0
beside.graph.initializer.append(numpy_helper.from_array(habits, "habits"))
model = onnx.compose.merge_models(digits, beside, io_map=[("logits", "seen")])

images, labels = demo.digits()
references = np.load(demo.references_path())[:20]
writers = np.random.default_rng(0).uniform(0, 1, size=(20, 3)).astype(np.float32)
names = {"features": {"writer": ["from Europe", "left-handed", "in a hurry"]}}
compiled = irshap.compile(model, {"image": references, "writer": writers}, target=7, names=names)
seven = images[labels == 7][:1]
explanation = compiled.explainer()({"image": seven, "writer": np.array([[1.0, 0.0, 0.5]], np.float32)})

assert np.abs(explanation.completeness_error).max() < 1e-5
writer = explanation.values["writer"][0]
# this layer is linear: what it gets is known exactly
np.testing.assert_allclose(writer, [2 * (1 - writers[:, 0].mean()), 0, 0], atol=1e-5)
report.waterfall(explanation, name="writer").savefig(sys.argv[1], dpi=110)
