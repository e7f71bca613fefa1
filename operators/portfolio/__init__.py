"""The account: checks, sizing, paper fills, exits, exact ledger, positions and outcomes."""

from operators.portfolio.account import Portfolio

__all__ = ["Portfolio"]
