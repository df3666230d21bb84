"""The host's side of measuring model files on a device."""
