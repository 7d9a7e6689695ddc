"""Data: built-in soundscapes, dataset readers and the feature cache."""
