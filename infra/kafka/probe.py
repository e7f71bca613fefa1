"""Ask the broker at intervals whether it is there, apart from the work of a dataflow.

A consumer that gets nothing cannot tell a quiet topic from a broker that is gone: its own idea of the
end of a partition stays where it was.
"""

import threading
from collections.abc import Callable

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from infra.kafka.security import confluent_options
from schemas.settings import KafkaSettings

ANSWER_SECONDS = 2.0


class BrokerProbe:
    """A thread that asks every `interval_seconds` and tells of each answer."""

    def __init__(
        self,
        settings: KafkaSettings,
        topic: str,
        interval_seconds: float,
        on_answer: Callable[[], None],
    ) -> None:
        """Ask the broker of `settings` about the full name `topic`, whether it exists or not."""
        self._options = confluent_options(settings) | {
            "log_level": 0,
            "reconnect.backoff.max.ms": 1000,
        }
        self._topic, self._interval_seconds = topic, interval_seconds
        self._on_answer = on_answer
        self._ending = threading.Event()
        self._asker = threading.Thread(target=self._ask, name="broker-probe", daemon=True)

    def start(self) -> None:
        """Begin to ask, at once."""
        self._asker.start()

    def stop(self) -> None:
        """Ask no more."""
        self._ending.set()
        if self._asker.is_alive():
            self._asker.join(ANSWER_SECONDS)

    def _ask(self) -> None:
        client = AdminClient(self._options)
        while True:
            try:
                client.list_topics(self._topic, timeout=ANSWER_SECONDS)
            except KafkaException:
                pass
            else:
                self._on_answer()
            if self._ending.wait(self._interval_seconds):
                return
