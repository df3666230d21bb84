"""Everything that is sent to a device: Python 3.8 and the standard library only (the agent also uses numpy)."""
