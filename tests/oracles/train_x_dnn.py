"""Trains the demo's CNN without biases, an X-DNN (Hesse et al. 2021): tests/fixtures/digits_x.onnx.

All else is as in train_digits.py: data, seed, epochs, rates.  Without biases it scales with its input.
"""

from __future__ import annotations

from pathlib import Path

import torch
from exporting import difference, export
from train_digits import SEED, load, train

FILE = Path(__file__).resolve().parents[1] / "fixtures" / "digits_x.onnx"


def main() -> None:
    """Train, check, write."""
    train_images, train_labels, test_images, test_labels = load()
    model = train(train_images, train_labels, biases=False)
    with torch.no_grad():
        logits = model(torch.from_numpy(test_images)).numpy()
    accuracy = float((logits.argmax(1) == test_labels).mean())
    print(f"test accuracy {accuracy:.4f} on {len(test_labels)} digits")
    properties = {
        "description": "CNN without biases for the 8x8 digits of scikit-learn, pixels scaled to 0..1",
        "test_accuracy": f"{accuracy:.4f}",
        "test_digits": str(len(test_labels)),
        "seed": str(SEED),
    }
    export(model, {"image": torch.from_numpy(train_images[:2])}, FILE, properties=properties)
    error = difference(FILE, {"image": test_images}, logits)
    print(f"{FILE.name}: {FILE.stat().st_size} bytes, |ONNX Runtime - torch| {error:.2e}")


if __name__ == "__main__":
    main()
