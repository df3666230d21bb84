"""Devices that are reached over SSH: configuration, host keys, login, connection, and the link to a remote worker."""
