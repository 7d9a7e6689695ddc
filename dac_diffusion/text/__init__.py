"""Captions as tokens, and tokens as the continuous latents that diffusion works on."""
