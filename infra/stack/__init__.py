"""The embedded stack: an Apache Kafka broker and a ClickHouse-compatible store, one process each."""
