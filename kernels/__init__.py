"""Triton kernels of the fused Look-Aside Adapter; nothing but tensors and integers in here."""
