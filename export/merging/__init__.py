"""Adapters dissolved into the backbone's own Linears, and files of such models."""
