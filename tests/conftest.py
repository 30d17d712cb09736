"""What all tests share."""

import pytest
import torch

torch.set_num_threads(1)  # tensors here are small: threads would spend their time waiting for each other


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Each test draws the same random numbers alone or in company."""
    torch.manual_seed(0)
