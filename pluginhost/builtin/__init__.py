"""The plugins that ship with the host."""
