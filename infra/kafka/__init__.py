"""The log: Apache Kafka behind small classes that never lose, skip or double a record."""
