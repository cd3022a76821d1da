"""Ways to reach the model."""
