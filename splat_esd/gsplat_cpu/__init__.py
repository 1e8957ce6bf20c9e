"""gsplat's interface on a CPU: `rasterization` with its arguments, and kernels under its names."""
