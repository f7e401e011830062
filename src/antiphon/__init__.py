"""Antiphon serves a small reasoning model to many people at once, on the machine they already have."""

__version__ = "0.1.0"
