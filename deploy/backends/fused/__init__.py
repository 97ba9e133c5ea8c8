"""Our own kernels for this model: a whole K-loop, S-step denoise in one call, weights packed once.

    cpu.cpp, cpu_*.hpp   the model in C++, for the CPU it is compiled on
    cpu_library.py       compiles it, keeps the result, and calls it
    cpu_backend.py       the back end: observation in, actions out
    weights.py           the trained module's weights as the C++ takes them
    sampler.py           a sampler's steps as numbers, for both

    triton_kernel.py     all denoising steps in one launch on an NVIDIA GPU
    gpu_form.py          a policy as that kernel takes it: constants and weights
    gpu_chunk.py         what is before and after the kernel, in torch
    gpu_denoise.py       launches it
    gpu_backend.py       the back end: the cuda-graph one with this in place of the steps
    gpu_compile.py       compiles it for a GPU that is not there

What is measured of it, and the floors: `scripts/bench_fused.py`, docs/fused.md.
"""
