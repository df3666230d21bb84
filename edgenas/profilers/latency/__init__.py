"""Latency tables: predicted latency of every subnet of a space on one target."""
