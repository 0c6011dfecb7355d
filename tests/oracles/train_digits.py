"""Trains the demo model on scikit-learn's 8x8 digits and writes irshap/demo/ (see README.md here)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from exporting import difference, export
from models import DigitsNet
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

DEMO = Path(__file__).resolve().parents[2] / "irshap" / "demo"
SEED = 20
EPOCHS = 60
BATCH = 64
REFERENCES_PER_CLASS = 10


def load() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Training images and labels, test images and labels; pixels in 0..1."""
    digits = load_digits()
    images = (digits.images / 16.0).astype(np.float32)[:, None]
    labels = digits.target.astype(np.int64)
    parts = train_test_split(images, labels, test_size=0.2, random_state=SEED, stratify=labels)
    train_images, test_images, train_labels, test_labels = parts
    return train_images, train_labels, test_images, test_labels


def train(images: np.ndarray, labels: np.ndarray, *, biases: bool = True) -> nn.Module:
    """The network after EPOCHS of AdamW with a one-cycle rate, on images shifted by up to a pixel."""
    torch.manual_seed(SEED)
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(1)
    model = DigitsNet().train()
    for module in () if biases else model:
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.bias = None
    x, y = torch.from_numpy(images), torch.from_numpy(labels)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1e-2)
    steps = -(-len(x) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, epochs=EPOCHS, steps_per_epoch=steps)
    for _ in range(EPOCHS):
        for chosen in torch.randperm(len(x)).split(BATCH):
            shift = [int(s) for s in torch.randint(-1, 2, (2,))]
            batch = torch.roll(x[chosen], shift, dims=(2, 3))
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(batch), y[chosen], label_smoothing=0.02).backward()
            optimizer.step()
            schedule.step()
    return model.eval()


def choose_references(images: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """REFERENCES_PER_CLASS training digits of each class, interleaved, so that a prefix is balanced too."""
    random = np.random.default_rng(SEED)
    chosen = [
        random.choice(np.flatnonzero(labels == c), REFERENCES_PER_CLASS, replace=False) for c in range(10)
    ]
    return np.ascontiguousarray(images[np.stack(chosen, axis=1).ravel()])


def write(
    model: nn.Module, path: Path, kind: str, example: np.ndarray, tests: tuple[np.ndarray, ...]
) -> None:
    """Writes the trained network, called a `kind`, if it is good enough; `tests`: images and labels."""
    images, labels = tests
    with torch.no_grad():
        logits = model(torch.from_numpy(images)).numpy()
    accuracy = float((logits.argmax(1) == labels).mean())
    print(f"test accuracy {accuracy:.4f} on {len(labels)} digits")
    if accuracy < 0.97:
        raise SystemExit("the model must reach 97 %")
    properties = {
        "description": f"{kind} for the 8x8 digits of scikit-learn, pixels scaled to 0..1",
        "test_accuracy": f"{accuracy:.4f}",
        "test_digits": str(len(labels)),
        "seed": str(SEED),
    }
    export(model, {"image": torch.from_numpy(example)}, path, properties=properties)
    error = difference(path, {"image": images}, logits)
    print(f"{path.name}: {path.stat().st_size} bytes, |ONNX Runtime - torch| {error:.2e}")


def main() -> None:
    """Train, check, write."""
    train_images, train_labels, test_images, test_labels = load()
    model = train(train_images, train_labels)
    references = choose_references(train_images, train_labels)
    write(model, DEMO / "digits.onnx", "CNN", references[:2], (test_images, test_labels))
    np.save(DEMO / "digits_references.npy", references)
    np.savez_compressed(DEMO / "digits_test.npz", images=test_images, labels=test_labels)


if __name__ == "__main__":
    main()
