"""Everything that touches the outside: Kafka, ClickHouse, files, clocks, settings, the local stack."""
