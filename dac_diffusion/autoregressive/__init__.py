"""The autoregressive captioners that the diffusion captioner is measured against."""
