"""What can be wrong with the log, and what the process does about it.

LogFaultError
├── BrokerAwayError         no answer in time; the process ends, its supervisor starts it again
├── TopicMissingError       the process does not start; the topics must be created
├── TopicMismatchError      the process does not start; the topic was made for another layout
├── OffsetGoneError         the process ends and does not skip; an operator decides
├── HistoryGoneError        the process does not start: what it wrote cannot be made again
├── OffsetRegressionError   the process ends: the log lost records that were acknowledged
├── SnapshotVersionError    the process does not start: another release wrote the recovery state
├── ReadFailedError         the process ends; after a restart it reads the same records again
└── DeliveryError           the process ends before its epoch closes; a restart sends again
"""


class LogFaultError(Exception):
    """The log did not do what it promises; the process ends rather than guess."""


class BrokerAwayError(LogFaultError):
    """The broker did not answer before the deadline; the process ends and is started again."""


class TopicMissingError(LogFaultError):
    """A topic or partition does not exist; the process does not start."""


class TopicMismatchError(LogFaultError):
    """A topic exists with another partition count; the process does not start."""


class OffsetGoneError(LogFaultError):
    """Records at the resume position were deleted; the process ends instead of skipping them."""


class HistoryGoneError(LogFaultError):
    """Without recovery state and without the whole log a flow would write another history."""


class OffsetRegressionError(LogFaultError):
    """The log ends before the resume position: acknowledged records were lost; the process ends."""


class SnapshotVersionError(LogFaultError):
    """Recovery state has a layout that this release does not read; the process does not start."""


class ReadFailedError(LogFaultError):
    """A fetch failed for good; the process ends and reads the same records after a restart."""


class DeliveryError(LogFaultError):
    """Records were not acknowledged; the process ends before the epoch closes and sends them again."""
