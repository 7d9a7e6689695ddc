"""Soundscapes: scenes of one to three sound events with five reference captions each.

Everything is a pure function of a seed: scene plan -> waveform and event activity -> captions.
"""
