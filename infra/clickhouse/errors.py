"""What can go wrong between a process and ClickHouse, and what the process does about it.

StoreUnavailableError  retried with back-off by the sink; after its deadline the process exits
StoreRefusedError      the process exits at once: credentials, rights or a statement are wrong
MigrationChangedError  the process exits at once: the store was built by other migrations
RecordUnknownError     the command line says so and exits 1
"""


class StoreUnavailableError(RuntimeError):
    """No answer within the deadline; the same call may succeed later."""


class StoreRefusedError(RuntimeError):
    """ClickHouse answered with an error that a retry does not mend."""


class MigrationChangedError(RuntimeError):
    """A migration that was already applied differs from the one in this release."""


class RecordUnknownError(LookupError):
    """No table holds the record that was asked for."""
