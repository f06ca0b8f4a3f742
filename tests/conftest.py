"""What all tests share: quiet numeric libraries and a study small enough to run hundreds of times."""

import os

# Before any numeric library starts its threads: two busy pools on two cores are many times slower than one thread each.
for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")
os.environ.setdefault("MUJOCO_GL", "disable")
