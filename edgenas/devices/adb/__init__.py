"""Phones and other machines that are reached through adb, the Android Debug Bridge."""
