"""Keyword spotting for edgenas: a space, a data set, a runtime, a kind of device and a search strategy."""
