"""Discrete audio tokens: codes (B, S, N) of neural audio codecs, or of an encoder's features."""
