"""Trains the demo's CNN without biases, an X-DNN (Hesse et al. 2021): tests/fixtures/digits_x.onnx.

All else is as in train_digits.py: data, seed, epochs, rates.  Without biases it scales with its input.
"""

from __future__ import annotations

from pathlib import Path

from train_digits import load, train, write

FILE = Path(__file__).resolve().parents[1] / "fixtures" / "digits_x.onnx"


def main() -> None:
    """Train, check, write."""
    train_images, train_labels, *tests = load()
    model = train(train_images, train_labels, biases=False)
    write(model, FILE, "CNN without biases", train_images[:2], tuple(tests))


if __name__ == "__main__":
    main()
