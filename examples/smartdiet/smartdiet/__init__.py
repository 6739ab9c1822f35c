"""Plans a week's meals around what a person needs to eat."""
