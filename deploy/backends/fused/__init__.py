"""Our own kernels for this model: a whole K-loop, S-step denoise in one call, weights packed once.

    cpu.cpp, cpu_*.hpp   the model in C++, for the CPU it is compiled on
    cpu_library.py       compiles it, keeps the result, and calls it
    cpu_backend.py       the back end: observation in, actions out
    weights.py           the trained module's weights as the kernels take them
    sampler.py           a sampler's steps as numbers

What is measured of it, and the floor: `scripts/bench_fused.py`, docs/backends.md.
"""
