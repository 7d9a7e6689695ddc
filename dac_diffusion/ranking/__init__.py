"""Ranking: how well a caption fits a recording."""
