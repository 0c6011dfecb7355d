"""Explains data sets: rows from files or iterators, shard by shard, into a folder.

Imports irshap's runtime alone, as a machine that only explains does.  `explain_dataset` is the whole of it;
an engine that runs shards elsewhere takes a `Job` and gives `Record`s (`engine.Engine`).
"""

from irshap.datasets.explain import DatasetReport, explain_dataset
from irshap.datasets.folders import Pixels
from irshap.datasets.prepare import Options
from irshap.datasets.verify import VerifyReport, verify_dataset

__all__ = ["DatasetReport", "Options", "Pixels", "VerifyReport", "explain_dataset", "verify_dataset"]
