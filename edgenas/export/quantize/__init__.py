"""Model files in float16, dynamic range and int8."""
