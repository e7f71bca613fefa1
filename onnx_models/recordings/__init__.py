"""Recorded market data that ships with the code."""
