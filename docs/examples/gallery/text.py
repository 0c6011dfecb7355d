"""A text: a model of words that knows "good", "bad" and what "not" does to them.

python docs/examples/gallery/text.py words.png
"""

import sys

import numpy as np
from onnx import numpy_helper, parser

import irshap
from irshap import report

WORDS = ["", "the", "film", "is", "not", "good", "bad", "plot", "acting", "but", "great", "boring"]
# an embedding: how good a word is, and whether it turns round the next one
table = np.zeros((len(WORDS), 2), np.float32)
for word, worth in {"good": 1.0, "bad": -1.0, "great": 2.0, "boring": -1.5}.items():
    table[WORDS.index(word), 0] = worth
table[WORDS.index("not"), 1] = 1.0

# a convolution over two neighbours: the worth of a word, less twice that of one behind "not"
model = parser.parse_model("""<ir_version: 8, opset_import: ["": 17]>
words (int64[N,T] tokens) => (float[N,1] score)
<int64[1] first = {0}, int64[1] second = {1}, int64[1] last = {-1}, int64[1] end = {9223372036854775807},
 int64[1] along = {1}, int64[1] across = {2}, int64[1] one = {1}, float two = {2.0}> {
    e = Gather(table, tokens)
    worth = Slice(e, first, one, across)
    turns = Slice(e, second, end, across)
    before = Slice(turns, first, last, along)
    behind = Slice(worth, second, end, along)
    turned = Mul(before, behind)
    lost = Mul(turned, two)
    all = ReduceSum<keepdims=0>(worth, along)
    less = ReduceSum<keepdims=0>(lost, along)
    sum = Sub(all, less)
    score = Tanh(sum)
}""")
model.graph.initializer.append(numpy_helper.from_array(table, "table"))

texts = ["the film is not good but the acting is great", "the plot is boring", "the film is not bad"]
length = max(len(text.split()) for text in texts)
tokens = np.zeros((len(texts), length), np.int64)
for row, text in zip(tokens, texts, strict=True):
    row[: len(text.split())] = [WORDS.index(word) for word in text.split()]

padding = np.zeros((1, length), np.int64)
explainer = irshap.compile(model, padding, target=0, names={"tokens": WORDS}).explainer()
explanation = explainer(tokens)

assert np.abs(explanation.completeness_error).max() < 1e-5
# "not" speaks against before "good", and for before "bad"; a product's difference is shared by both factors
against, speaks_for = (explanation.values[i][tokens[i] == WORDS.index("not")] for i in (0, 2))
assert against < 0 < speaks_for
report.tokens(explanation, 0).savefig(sys.argv[1], dpi=110)
