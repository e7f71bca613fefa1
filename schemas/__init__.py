"""Contracts: one frozen message class per topic, and everything that is derived from it."""
