"""Blocks of networks, one file each: their sizes and the primitive layers that these make."""
