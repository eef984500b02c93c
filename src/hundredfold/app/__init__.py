"""The web page and the JSON endpoint of a trained model."""
