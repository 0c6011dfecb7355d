"""Measures of attributions, and the axioms that methods keep.

    from irshap.metrics.evaluate import evaluate

    found = evaluate({"deeplift": "explained.onnx"}, images, labels)
    found.value("deeplift", "keep-positive")

A measure is one dataclass (`measure.Measure`), registered by its name; `irshap evaluate --list` lists them.
"""
