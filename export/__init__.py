"""From a trained model to something that serves."""
