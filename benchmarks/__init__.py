"""Comparisons with other libraries, each a command."""
