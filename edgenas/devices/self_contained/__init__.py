"""Python and the runtimes in one folder that needs nothing of a device but its kernel and a shell."""
