"""A sequence of letters: a network that looks for TATAAA, and where it found it.

python docs/examples/gallery/sequence.py logo.png
"""

import sys

import numpy as np
from onnx import numpy_helper, parser

import irshap
from irshap import report

LETTERS = "ACGT"
MOTIF = "TATAAA"

# a filter that answers to the motif, and a layer that says how sure it is
motif = np.array([[letter == other for letter in MOTIF] for other in LETTERS], np.float32)
model = parser.parse_model("""<ir_version: 8, opset_import: ["": 17]>
motif (float[N,4,40] dna) => (float[N,1] found)
<float bias = {-4.0}, int64[1] along = {2}> {
    fits = Conv(dna, filter)
    over = Add(fits, bias)
    hits = Relu(over)
    best = ReduceMax<axes=[2], keepdims=0>(hits)
    found = Tanh(best)
}""")
model.graph.initializer.append(numpy_helper.from_array(motif[None], "filter"))

random = np.random.default_rng(1)
text = "".join(random.choice(list(LETTERS), 40))
text = text[:22] + MOTIF + text[22 + len(MOTIF) :]
sample = np.array([[letter == other for letter in text] for other in LETTERS], np.float32)[None]

# against shuffles of the sequence itself, that keep which letters follow each other
references = irshap.make_references(sample, "dinucleotide-shuffle", 50, per_sample=True).samples[0]
explanation = irshap.compile(model, references, target=0).explainer()(sample)

assert np.abs(explanation.completeness_error).max() < 1e-5
per_place = np.abs((explanation.values * sample)[0].sum(axis=0))
assert set(np.argsort(-per_place)[:3]) <= set(range(22, 28))
report.logo(explanation, letters=LETTERS).savefig(sys.argv[1], dpi=110)
