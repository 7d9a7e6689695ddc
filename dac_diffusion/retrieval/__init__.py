"""Retrieval: captions of other clips that lie near a clip in a joint audio-text space."""
