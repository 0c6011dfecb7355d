"""Makes a folder with a web page that reads a drawn digit and explains it, in the browser alone.

    npm install --prefix build/js onnxruntime-web
    python docs/examples/web/build.py build/web --modules build/js/node_modules
    python -m http.server --directory build/web

The folder holds the page, ONNX Runtime's WebAssembly, the digits' network compiled with `--for web` for all
ten classes against 20 references (each touch of the pen is explained, and 100 would take five times as long),
and a test digit of each class.  Any server of files can offer it; the page asks for nothing else.
"""

import argparse
import json
import shutil
from pathlib import Path

import numpy as np

import irshap
from irshap import demo

HERE = Path(__file__).parent
PAGE = ("index.html", "page.css", "page.js")
# one thread, no GPU: the smallest of the package's forms
RUNTIME = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="where the page is written")
    parser.add_argument("--modules", type=Path, default="node_modules", help="where npm put its packages")
    asked = parser.parse_args()
    runtime = asked.modules / "onnxruntime-web" / "dist"
    if not runtime.is_dir():
        mend = "npm install --prefix FOLDER onnxruntime-web, then --modules FOLDER/node_modules"
        parser.error(f"{runtime} isn't there: {mend}")

    (asked.folder / "ort").mkdir(parents=True, exist_ok=True)
    for name in PAGE:
        shutil.copyfile(HERE / name, asked.folder / name)
    for name in RUNTIME:
        shutil.copyfile(runtime / name, asked.folder / "ort" / name)
    method = "deeplift{emit=completeness_error}"
    references = np.load(demo.references_path())[::5]
    compiled = irshap.compile(demo.model_path(), references, target="all", method=method, device="web")
    compiled.save(asked.folder / "digits.onnx")
    images, labels = demo.digits()
    samples = [images[labels == digit][1].ravel().round(4).tolist() for digit in range(10)]
    (asked.folder / "samples.json").write_text(json.dumps(samples), encoding="utf-8")
    print(f"{asked.folder}: python -m http.server --directory {asked.folder}")


if __name__ == "__main__":
    main()
