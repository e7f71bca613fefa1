"""A learner of River as bytes: equal learners are equal bytes.

River gives every normal distribution a random generator, 2.5 kB that the machine seeds and only
`sample` asks. A leaf of a tree holds one distribution per input and class and never samples, so the
generators are most of its bytes, and other ones in every run. They are left out.
"""

from copyreg import dispatch_table
from io import BytesIO
from pickle import Pickler
from typing import Any

from river.proba import Gaussian


def dump_learner(learner: object) -> bytes:
    """Return what `pickle.loads` makes a learner of that goes on like `learner`, bit for bit."""
    written = BytesIO()
    pickler = Pickler(written, protocol=5)
    pickler.dispatch_table = {**dispatch_table, Gaussian: _reduce_gaussian}
    pickler.dump(learner)
    return written.getvalue()


def _reduce_gaussian(gaussian: Gaussian) -> tuple[Any, ...]:
    build, arguments, known, *_ = gaussian.__reduce_ex__(5)
    return build, arguments, {**known, "_rng": None}
