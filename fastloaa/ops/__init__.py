"""The one operation of this library: what it computes, its backends, and how PyTorch's tools see it.

`functional` checks a call and chooses the backend; `reference` and `gemm_shift` are two of them, `library` brings the
third, the Triton kernels, to PyTorch. A call is one object for all of them, `fastloaa.kernels.call.Call`: it stands
with the kernels, which import nothing above themselves.
"""
