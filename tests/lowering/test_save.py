"""Writing models: the same bytes each time, checked, and all or nothing whatever fails on the way."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, numpy_helper, parser

from irshap.errors import ModelError, UserError
from irshap.files import data_file, own_data
from irshap.lowering.files.load import load_model
from irshap.lowering.files.save import save_model

KIB = 1024


def model(fill: float = 1.0) -> onnx.ModelProto:
    """Two weights over 4 KiB, one small, one of them not a multiple of a page."""
    proto = parser.parse_model(
        """<ir_version: 10, opset_import: ["": 17]>
    g (float[N,30] x) => (float[N,50] y) <float[1] one = {1}> {
        h = MatMul(x, v)
        k = MatMul(h, w)
        y = Add(k, one)
    }"""
    )
    for name, shape in (("v", (30, 41)), ("w", (41, 50))):
        proto.graph.initializer.append(numpy_helper.from_array(np.full(shape, fill, np.float32), name))
    return proto


def state(folder: Path) -> dict[str, bytes]:
    """All files in the folder, leftovers of any kind included."""
    return {str(f.relative_to(folder)): f.read_bytes() if f.is_file() else b"" for f in folder.rglob("*")}


SIZES = pytest.mark.parametrize("external_over", [2**31 - 1, KIB], ids=["one-file", "two-files"])


@SIZES
def test_round_trip(tmp_path: Path, external_over: int) -> None:
    file = tmp_path / "out.onnx"
    for fill in (1.0, 2.0):  # the second replaces the first
        proto = model(fill)
        save_model(proto, file, external_over=external_over)
        assert proto == model(fill)
        assert load_model(file) == proto
        session = ort.InferenceSession(file, providers=["CPUExecutionProvider"])
        (y,) = session.run(None, {"x": np.ones((2, 30), np.float32)})
        np.testing.assert_allclose(y, 30 * 41 * fill * fill + 1)
    data = own_data(file)
    assert len(data) == (external_over <= KIB) and data_file(file) == next(iter(data), None)
    assert set(state(tmp_path)) == {"out.onnx", *(p.name for p in data)}


def test_what_only_looks_like_a_data_file(tmp_path: Path) -> None:
    """A weight may hold any bytes."""
    file = tmp_path / "out.onnx"
    for name in (b"a" * 300, b"..", b"", b"a\0", b"\xff", b"a/b"):
        length = [len(name)] if len(name) < 128 else [len(name) & 127 | 128, len(name) >> 7]
        file.write_bytes(b"\n\x08location\x12" + bytes(length) + name)
        assert data_file(file) is None


def test_external_layout(tmp_path: Path) -> None:
    save_model(model(), str(tmp_path / "out.onnx"), external_over=KIB)
    written = onnx.load(tmp_path / "out.onnx", load_external_data=False)
    one, v, w = written.graph.initializer
    assert list(one.float_data) == [1.0] and not one.external_data
    entries = [{entry.key: entry.value for entry in tensor.external_data} for tensor in (v, w)]
    (data,) = own_data(tmp_path / "out.onnx")
    assert data.name == f"out.onnx.{sha256(data.read_bytes()).hexdigest()[:16]}.data"
    assert [entry["location"] for entry in entries] == [data.name] * 2
    assert [int(entry["offset"]) for entry in entries] == [0, 8192]
    assert [int(entry["length"]) for entry in entries] == [30 * 41 * 4, 41 * 50 * 4]
    assert data.stat().st_size == 8192 + 41 * 50 * 4


def test_threshold_counts_the_whole_message(tmp_path: Path) -> None:
    size = model().ByteSize()
    save_model(model(), tmp_path / "a.onnx", external_over=size + 32)
    save_model(model(), tmp_path / "b.onnx", external_over=size - 1)
    assert set(state(tmp_path)) == {"a.onnx", "b.onnx", own_data(tmp_path / "b.onnx")[0].name}


@SIZES
def test_same_bytes(tmp_path: Path, external_over: int) -> None:
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        folder.mkdir()
        proto = model()
        onnx.helper.set_model_props(proto, {"b": "1", "a": "2"})
        save_model(proto, folder / "out.onnx", external_over=external_over)
    assert state(folders[0]) == state(folders[1])


def test_ordinary_permissions(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    save_model(model(), tmp_path / "out.onnx")
    assert (tmp_path / "out.onnx").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_link_is_replaced_and_its_target_left(tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(b"kept")
    (tmp_path / "out.onnx").symlink_to("target")
    save_model(model(), tmp_path / "out.onnx")
    assert not (tmp_path / "out.onnx").is_symlink() and (tmp_path / "target").read_bytes() == b"kept"


# --- refusals ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("none/out.onnx", "its folder does not exist"),
        ("file/out.onnx", "its folder does not exist"),
        (".", "is a folder"),
        ("a\0b", "zero byte"),
        ("x" * 300, "File name too long"),
    ],
)
def test_bad_paths(tmp_path: Path, path: str, expected: str) -> None:
    (tmp_path / "file").touch()
    before = state(tmp_path)
    with pytest.raises(UserError, match=expected):
        save_model(model(), tmp_path / path)
    assert state(tmp_path) == before


@pytest.mark.skipif(not Path("/dev/null").is_char_device(), reason="no devices here")
def test_device_is_not_replaced() -> None:
    with pytest.raises(UserError, match="not a regular file"):
        save_model(model(), "/dev/null")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root writes everywhere")
def test_folder_not_writable(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match="can't be written: Permission denied"):
        save_model(model(), tmp_path / "out.onnx")


def test_invalid_model(tmp_path: Path) -> None:
    proto = model()
    proto.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 51  # only the full check sees it
    with pytest.raises(ModelError, match="not a valid ONNX model"):
        save_model(proto, tmp_path / "out.onnx")
    assert not state(tmp_path)
    save_model(proto, tmp_path / "out.onnx", check=False)
    assert set(state(tmp_path)) == {"out.onnx"}


def test_external_data_must_be_loaded(tmp_path: Path) -> None:
    proto = model()
    proto.graph.initializer[1].data_location = TensorProto.EXTERNAL
    with pytest.raises(ModelError, match="external data"):
        save_model(proto, tmp_path / "out.onnx")


# --- failures on the way ----------------------------------------------------------------------------


def fail_at(call: int, error: BaseException, real: Callable[..., object]) -> Callable[..., object]:
    """`real`, but its call number `call` raises."""
    calls = iter(range(10**6))

    def wrapper(*args: object, **kwargs: object) -> object:
        if next(calls) == call:
            raise error
        return real(*args, **kwargs)

    return wrapper


ERRORS = [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()]


@SIZES
@pytest.mark.parametrize("existing", [False, True], ids=["new", "existing"])
@pytest.mark.parametrize("error", ERRORS, ids=["disk-full", "interrupt"])
@pytest.mark.parametrize(("owner", "name"), [(os, "fsync"), (Path, "replace"), (Path, "open")])
def test_nothing_changes_on_failure(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    owner: object,
    name: str,
    error: BaseException,
    existing: bool,
    external_over: int,
) -> None:
    """Whichever call fails, the folder is as before: an old output whole, no new one, no leftovers."""
    if existing:
        save_model(model(1.0), tmp_path / "out.onnx", external_over=external_over)
    before = state(tmp_path)
    for call in range(8):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, fail_at(call, error, getattr(owner, name)))
            try:
                save_model(model(2.0), tmp_path / "out.onnx", external_over=external_over)
            except UserError as caught:
                assert "No space left on device" in str(caught)
            except KeyboardInterrupt:
                assert isinstance(error, KeyboardInterrupt)
            else:
                break
        if name == "fsync" and state(tmp_path) != before:
            break  # the last sync, that of the folder, comes when all is in place
        assert state(tmp_path) == before
    assert call > 0
    assert load_model(tmp_path / "out.onnx") == model(2.0)


KILLED = """
import os, signal, sys
from pathlib import Path
from irshap.lowering.files.load import load_model
from irshap.lowering.files.save import save_model

old, new, out = load_model(sys.argv[1]), load_model(sys.argv[2]), Path(sys.argv[3])

def killed_at(number):
    def killing(real):
        def call(*arguments, **options):
            nonlocal number
            number -= 1
            if number < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments, **options)
        return call
    for owner, name in ((os, "fsync"), (Path, "replace"), (Path, "rename"), (Path, "unlink"), (os, "close")):
        setattr(owner, name, killing(getattr(owner, name)))

def states(over):
    for number in range(100):
        save_model(old, out, external_over=over, check=False)
        if not (pid := os.fork()):
            killed_at(number)
            save_model(new, out, external_over=over, check=False)
            os._exit(0)
        status = os.waitpid(pid, 0)[1]
        read = load_model(out)
        yield "old" if read == old else "new" if read == new else "mixed"
        if status == 0:
            return

for over in map(int, sys.argv[4:]):
    print(*states(over))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_at_any_step(tmp_path: Path) -> None:
    """The old pair or the new one, never a mixture and never none; what stays behind goes with the next."""
    folder = tmp_path / "out"
    folder.mkdir()
    for name, fill in (("old", 1.0), ("new", 2.0)):
        save_model(model(fill), tmp_path / name)
    arguments = [str(tmp_path / "old"), str(tmp_path / "new"), str(folder / "out.onnx")]
    arguments += [str(2**31 - 1), str(KIB)]  # one file, then two
    done = subprocess.run([sys.executable, "-c", KILLED, *arguments], capture_output=True, text=True)
    rows = [line.split() for line in done.stdout.splitlines()]
    assert len(rows) == 2, done.stderr
    for found in rows:
        assert len(found) > 5 and set(found) == {"old", "new"}
        assert found == sorted(found, reverse=True)  # at one step all of it changes
    assert set(state(folder)) == {"out.onnx", own_data(folder / "out.onnx")[0].name}


def test_two_writers_at_once(tmp_path: Path) -> None:
    """Whoever comes last is there, with its own data."""
    file = tmp_path / "out.onnx"

    def write(fill: float) -> None:
        for _ in range(5):
            save_model(model(fill), file, external_over=KIB, check=False)

    writers = [threading.Thread(target=write, args=(float(fill),)) for fill in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert load_model(file) in [model(float(fill)) for fill in range(4)]
    assert set(state(tmp_path)) == {"out.onnx", own_data(file)[0].name}


FULL_DISK = """
import resource, sys
from irshap.lowering.files.load import load_model
from irshap.lowering.files.save import save_model
model = load_model(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
save_model(model, sys.argv[2], external_over=int(sys.argv[3]))
"""


@SIZES
@pytest.mark.skipif(sys.platform == "win32", reason="no limits on file sizes")
def test_a_write_that_really_fails(tmp_path: Path, external_over: int) -> None:
    (tmp_path / "out").mkdir()
    save_model(model(1.0), tmp_path / "in.onnx")
    save_model(model(1.0), tmp_path / "out" / "out.onnx", external_over=external_over)
    before = state(tmp_path / "out")
    arguments = [str(tmp_path / "in.onnx"), str(tmp_path / "out" / "out.onnx"), str(external_over)]
    result = subprocess.run(
        [sys.executable, "-c", FULL_DISK, *arguments], capture_output=True, text=True, check=False
    )
    assert "UserError" in result.stderr and "can't be written: File too large" in result.stderr
    assert state(tmp_path / "out") == before


SHORT_OF_MEMORY = """
import resource, sys
import numpy as np
import onnx
from irshap.lowering.files.save import save_model
text = '<ir_version: 8, opset_import: ["": 17]> g (float[N,3] x) => (float[N,3] y) { y = Relu(x) }'
model = onnx.parser.parse_model(text)
model.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros(2**26, np.float32), "w"))
used = int(open("/proc/self/status").read().split("VmData:")[1].split()[0]) * 1024
resource.setrlimit(resource.RLIMIT_DATA, (used + 2**27, used + 2**27))
save_model(model, sys.argv[1])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="no limits on memory")
def test_too_little_memory_is_called_that(tmp_path: Path) -> None:
    arguments = [sys.executable, "-c", SHORT_OF_MEMORY, str(tmp_path / "out.onnx")]
    result = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert result.stderr.strip().splitlines()[-1].startswith("MemoryError: ") and "0.3 GiB" in result.stderr
    assert list(tmp_path.iterdir()) == []
