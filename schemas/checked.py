"""Values checked against a type by msgspec, also when several threads meet the type at once.

msgspec learns a type on its first use and lets other threads in meanwhile; one that uses the same
type then reads a description that is not finished, and the process dies of it (seen with msgspec
0.22 where four lanes opened the registry of models together). Here a type is learned under a lock,
so the rest of the code checks values through this module only.
"""

from functools import cache
from threading import Lock
from typing import Any

import msgspec

_learning = Lock()


@cache
def decoder(kind: Any) -> msgspec.json.Decoder[Any]:
    """Return the decoder of JSON bytes into `kind`; its `decode` raises msgspec.DecodeError."""
    with _learning:
        return msgspec.json.Decoder(kind)


def convert(value: Any, kind: Any, **options: Any) -> Any:
    """Return `value` as `kind`; see msgspec.convert, which raises msgspec.ValidationError."""
    decoder(kind)
    return msgspec.convert(value, kind, **options)
