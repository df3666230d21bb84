"""Spectrograms of synthetic sounds: sweeps up and down, a steady tone, clicks."""

from __future__ import annotations

import numpy as np

from edgenas.data import DataSet, DataSetPreprocessing, Split

CLASSES = ("up", "down", "steady", "clicks")
EACH = 40  # sounds of a class
RATE, SAMPLES, WINDOW, HOP = 4000, 2112, 128, 64
FRAMES, BANDS = 32, 10


def spectrogram(sound: np.ndarray) -> np.ndarray:
    """Return the power in dB of a sound's frames and bands as uint8 (FRAMES, BANDS)."""
    frames = np.lib.stride_tricks.sliding_window_view(sound, WINDOW)[::HOP]
    power = np.abs(np.fft.rfft(frames * np.hanning(WINDOW))[:, 1 : 1 + 6 * BANDS]) ** 2
    decibels = 10 * np.log10(power.reshape(FRAMES, BANDS, 6).sum(2) + 1e-3)
    return np.asarray(np.clip(4 * (decibels + 30), 0, 255), dtype=np.uint8)


def make_sound(label: int, rng: np.random.Generator) -> np.ndarray:
    """Return a sound of a class in noise (SAMPLES,)."""
    time = np.arange(SAMPLES) / RATE
    low, high = rng.uniform(150, 500), rng.uniform(1100, 1800)
    start, end = ((low, high), (high, low), (low, low), (0, 0))[label]
    tone = np.sin(2 * np.pi * (start * time + (end - start) * time**2 / (2 * time[-1])))
    if CLASSES[label] == "clicks":
        tone = 8 * (np.arange(SAMPLES) % int(rng.integers(300, 500)) == 0)
    return np.asarray(tone + rng.normal(0, 0.05, SAMPLES))


def load_sweeps() -> DataSet:
    """Return 160 spectrograms of four classes: of each, 24 to train on, 8 for validation, 8 for testing."""
    rng = np.random.default_rng(0)
    labels = np.arange(EACH * len(CLASSES)) % len(CLASSES)
    images = np.stack([spectrogram(make_sound(label, rng)) for label in labels.tolist()])
    ends = np.cumsum([24, 8, 8]) * len(CLASSES)
    train, validation, test = (
        Split(images[start:end], labels[start:end], np.arange(start, end))
        for start, end in zip([0, *ends], ends, strict=False)
    )
    preprocessing = DataSetPreprocessing(channels=1, scale=1 / 255, mean=(0.35,), std=(0.25,))
    return DataSet("sweeps", CLASSES, preprocessing, train, validation, test)
