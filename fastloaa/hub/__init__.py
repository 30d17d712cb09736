"""Trained runs and adapters on Hugging Face's hub."""

from fastloaa.hub.repository import HubError, from_pretrained, push_to_hub, save_pretrained

__all__ = ["HubError", "from_pretrained", "push_to_hub", "save_pretrained"]
