"""Continuous diffusion over caption latents: schedule, denoiser, objective, sampling."""
