"""Readers of the published captioned data sets and of tables of one's own, one file each."""
