"""Audio encoders: waveform -> features (B, S, D), mask (B, S) and one pooled vector (B, P)."""
