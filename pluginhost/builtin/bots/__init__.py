"""Keeps robots out: a maintained list of patterns, the site's own, and one in the admin."""
