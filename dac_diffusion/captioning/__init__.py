"""The parts of the captioner: its inputs, its results, choosing captions, loading checkpoints."""
