"""What captions are worth: quality, diversity, well-formedness, the sounds they name."""
