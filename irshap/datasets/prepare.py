"""What is asked for, as a job with a plan, and as what the manifest says of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from irshap import contract
from irshap.datasets.base import Wanted, digest_of, row_count, sampled_digest
from irshap.datasets.folders import Pixels
from irshap.datasets.job import Job, Worker
from irshap.datasets.manifest import Manifest
from irshap.datasets.plan import (
    PROCESS,
    SESSION,
    Plan,
    batch_of,
    many_shards,
    measured,
    row_bytes,
    shard_rows_of,
    workers_within,
)
from irshap.datasets.rows import Keep, columns, lost_rows
from irshap.datasets.sinks import Sink, open_sink
from irshap.datasets.sources import open_source
from irshap.errors import UserError, near
from irshap.files import data_file
from irshap.runtime import Explainer
from irshap.runtime.arrays import Arrays, as_arrays, unknown_names
from irshap.runtime.explainer import ExplainedModel, content_of
from irshap.runtime.labels import flat_names
from irshap.runtime.sizes import is_whole, parse_size

__all__ = ["Options", "Prepared", "model_digest", "prepared", "versions"]


@dataclass(frozen=True)
class Options:
    """How a data set is explained.

    Attributes:
        format: "parquet" or "npy".
        top, sum_over, dtype: keep only the largest attributions, or sums over these axes of the input (1 is
            the first behind the batch); their type: "float16".  As the pass `summary` does.
        columns: in Parquet a column for each feature, where there would be one of lists.
        target: the class to explain, for a model that is told it at run time.
        references: for a model that takes them at run time.
        names: what people call features.
        pixels: how images become what the model takes.
        max_error: rows whose completeness error exceeds this times max(1, |f(x) - base|) are listed.
        strict: whether a bad row ends the run.
        batch, shard_rows: rows in a run of ONNX Runtime, and in a shard; None: chosen.
        workers, threads: sessions, and threads in each; None: measured on the first rows, or with Ray as
            many sessions of one thread as its cluster has room for.
        memory_limit: bytes that the process (with Ray each worker) may take, or a text such as "4GiB".
        providers: ONNX Runtime's execution providers; None: the CPU.
        address: of a Ray cluster; None: that of this machine, or else one that is started for the run.
    """

    format: str = "parquet"
    top: int = 0
    sum_over: Sequence[int] = ()
    dtype: str | None = None
    columns: bool = False
    target: int | None = None
    references: Any = None
    names: Any = None
    pixels: Pixels | None = None
    max_error: float | None = None
    strict: bool = False
    batch: int | None = None
    shard_rows: int | None = None
    workers: int | None = None
    threads: int | None = None
    memory_limit: int | str | None = None
    providers: Sequence[Any] | None = None
    address: str | None = None

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Options:
        """Options by name.

        Raises:
            UserError: there is no such option.
        """
        known = [f.name for f in fields(cls)]
        for name in given:
            if name not in known:
                raise UserError(f"data sets have no option {name!r}", mend=near(name, known))
        return cls(**given)

    def __post_init__(self) -> None:
        least = {"top": 0, "batch": 1, "shard_rows": 1, "workers": 1, "threads": 1}
        for name, low in least.items():
            value = getattr(self, name)
            if value is not None and not is_whole(value, low):
                raise UserError(f"{name}={value!r}", mend=f"give a whole number, at least {low}")
        axes: object = self.sum_over
        if not isinstance(axes, list | tuple):
            raise UserError(f"sum_over={self.sum_over!r} is no list of axes", mend="give such as (1, 2)")
        if self.max_error is not None and not isinstance(self.max_error, int | float | np.number):
            raise UserError(f"max_error={self.max_error!r}", mend="give a number, such as 1e-4")


@dataclass
class Prepared:
    """A job, and what is known before it runs.

    Attributes:
        header: what the manifest says of the run.
        complete: whether the folder's manifest says that all is there.
        rate: rows a second on the first ones; None where there are few.
        sessions: what workers may use.
        row: bytes that a session takes for each row of a shard.
        concern: why another plan would be better, while the folder has none yet, and how to get it.
    """

    job: Job
    header: dict[str, Any] = field(default_factory=dict)
    complete: bool = False
    rate: float | None = None
    sessions: list[Explainer] = field(default_factory=list)
    row: int = 0
    concern: str | None = None


def prepared(
    model: ExplainedModel, data: Any, folder: Path, asked: Options, *, here: bool = True
) -> Prepared:
    """The job, with its plan, and what the manifest says of it.

    Args:
        here: whether it runs in this process, so that its rate is measured.

    Raises:
        UserError: something doesn't fit, or can't be read.
    """
    content = _content(model)
    explainer = Explainer(content, asked.providers, asked.names, asked.threads or 1)
    given = _given(explainer, asked.target, asked.references, data)
    source = open_source(data, Wanted.of(explainer, given), asked.pixels)
    keep = Keep(asked.top, tuple(asked.sum_over), asked.dtype)
    sink = _sink(asked.format, folder, explainer, asked.columns, keep)
    job = Job(
        model=content,
        source=source,
        sink=sink,
        plan=Plan(1, 1),
        keep=keep,
        given=given,
        max_error=asked.max_error,
        strict=asked.strict,
        providers=asked.providers,
        names=asked.names,
    )
    earlier = Manifest.read(folder)
    fixed = {} if earlier is None else dict(earlier.header.get("plan", {}))
    fixed |= {n: v for n in ("batch", "shard_rows", "threads") if (v := getattr(asked, n)) is not None}
    limit = None if asked.memory_limit is None else parse_size(str(asked.memory_limit))
    complete = earlier is not None and earlier.complete
    found = _planned(
        job,
        explainer,
        fixed,
        asked.workers if here else asked.workers or 1,
        limit,
        # threads that are chosen change no bits, and needn't be the same when a run goes on
        choose=asked.threads is None and fixed.get("threads", 1) == 1,
        measure=here and not complete,
    )
    found.complete = complete
    if earlier is None:
        found.concern = many_shards(found.job.plan, source.rows, found.row)
    options = {**keep.options(), **sink.options(), "max_error": asked.max_error}
    found.header = {
        "model": model_digest(content),
        "given": digest_of(given),
        "data": source.digest(),
        "rows": source.rows,
        "options": {**options, "providers": list(explainer.providers)},
        "plan": {
            "batch": found.job.plan.batch,
            "shard_rows": found.job.plan.shard_rows,
            "threads": fixed.get("threads", 1),
        },
        "versions": versions(asked.format),
    }
    return found


def _content(model: ExplainedModel) -> str | bytes:
    """An absolute path, since another process may work in another folder; or bytes."""
    content, _ = content_of(model)
    return str(Path(content).absolute()) if isinstance(content, str) else content


def _planned(
    job: Job,
    explainer: Explainer,
    fixed: Mapping[str, int],
    workers: int | None,
    limit: int | None,
    *,
    choose: bool,
    measure: bool,
) -> Prepared:
    """The job with a plan: what is fixed, and else what its first rows say.

    Args:
        choose: whether sessions may have more threads than it is said.
        measure: whether it matters how fast it is.
    """
    first = job.source.first(3)
    if not row_count(first):
        raise UserError("there is no row", where=job.source.where)
    three = {name: array.take(np.arange(3) % len(array), 0) for name, array in first.items()}
    worker = Worker(replace(job, plan=Plan(explainer.batch or 3, 3)), explainer)
    explanation, feed = worker.explain(three), worker.feed(three)
    told = columns(explanation, job.keep, lost_rows(explanation))
    session = SESSION + 2 * (
        len(job.model) if isinstance(job.model, bytes) else Path(job.model).stat().st_size
    )
    each = 1
    if explainer.batch is None and ("batch" not in fixed or limit is not None):
        each = row_bytes(job.model, feed, explainer.row_axes, job.providers)
    batch = fixed.get("batch") or batch_of(each, explainer.batch, limit, PROCESS + session)
    if explainer.batch is not None and batch % explainer.batch:
        what = f"a batch of {batch}, for a file that takes {explainer.batch} rows at a time"
        raise UserError(what, mend="give a multiple, or leave it out")
    # rows and results of a shard: read, joined, written
    row = 4 * sum(a[0].nbytes for a in (*told.values(), *three.values()))
    room = None if limit is None else (limit - PROCESS - session - batch * each) // row
    shapes = [a.shape[1:] for a in told.values()]
    shard_rows = fixed.get("shard_rows") or shard_rows_of(shapes, batch, room)
    most = workers or workers_within(limit, PROCESS, session, batch * each + shard_rows * row)
    if job.source.rows is not None:
        most = min(most, -(-job.source.rows // shard_rows))
    plan = Plan(batch, shard_rows, fixed.get("threads", 1), most)
    few = job.source.rows is not None and job.source.rows <= 8 * batch * plan.workers
    if few or not measure:
        return Prepared(replace(job, plan=plan), sessions=[explainer], row=row)
    make = partial(Explainer, job.model, job.providers, job.names)
    rows = {name: array.take(np.arange(batch) % 3, 0) for name, array in three.items()}
    plan, rate, sessions = measured(plan, explainer, make, worker.feed(rows), choose=choose)
    return Prepared(replace(job, plan=plan), rate=rate, sessions=sessions, row=row)


def _given(explainer: Explainer, target: int | None, references: Any, data: Any) -> Arrays:
    """What all rows share, by the file's input."""
    found: Arrays = {}
    if target is not None:
        if explainer.tensors.target is None:
            mend = "leave the target out, or compile with --target input"
            raise UserError("takes no class at run time", where="explained model", mend=mend)
        found[explainer.tensors.target] = np.asarray(target, np.int64)
    if references is not None:
        inputs = explainer.tensors.references
        if not inputs:
            raise UserError("takes no references at run time", where="explained model", mend="leave them out")
        features = explainer.features((data, list(inputs)))
        arrays = as_arrays(references, list(inputs), UserError, "references", features)
        unknown_names(arrays, list(inputs), UserError, "references")
        found |= {inputs[name]: array for name, array in arrays.items()}
    return found


def _sink(format: str, folder: Path, explainer: Explainer, spread: bool, keep: Keep) -> Sink:
    features = {}
    if spread:
        if keep.top or keep.sum_over:
            raise UserError(
                "there are no columns for features with top or sum_over", mend="leave columns out"
            )
        for name in explainer.attributed:
            shape = explainer.sample_shapes.get(name)
            if shape is None or None in shape:
                raise UserError(f"{name!r} has no fixed features", mend="leave columns out: rows are lists")
            sizes = tuple(s for s in shape if s is not None)
            features[contract.attributions(name)] = flat_names(name, sizes, explainer.names)
    return open_sink(format, folder, features)


def model_digest(model: str | bytes) -> str:
    """Of the file, and of the data beside it."""
    if isinstance(model, bytes):
        return sha256(model).hexdigest()
    apart = data_file(model)
    found = sha256(Path(model).read_bytes())
    return found.hexdigest() + ("" if apart is None else sampled_digest(apart))


def versions(format: str) -> dict[str, str]:
    """Of the packages that results of this format depend on."""
    names = ["numpy", *(["pyarrow"] if format == "parquet" else [])]
    found = {name: version(name) for name in names}
    for name in ("onnxruntime-gpu", "onnxruntime"):
        try:
            found["onnxruntime"] = version(name)
            break
        except PackageNotFoundError:
            continue
    return {"irshap": contract.VERSION, **found}
