"""Keeps each event in a table of the project's own database, and joins anonymous ones to who logged in."""
