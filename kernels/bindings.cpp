#include <nanobind/nanobind.h>

NB_MODULE(_kernels, m) { m.doc() = "The CPU rasteriser of splat-esd."; }
