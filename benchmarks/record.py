"""Run the benchmarks one after the other and write what they print to `benchmarks/RESULTS.md`."""

from __future__ import annotations

import ast
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

HERE = Path(__file__).parent
PACKAGES = (
    *("torch", "numpy", "numba", "joblib", "transformers", "gillespy2", "nnsight", "transformer-lens"),
    *("snntorch", "spikingjelly", "norse", "reservoirpy", "pyhessian", "pytorch-metric-learning"),
    *("scikit-learn", "choix", "evalica", "gymnasium", "mujoco", "dm_control", "timm"),
    *("repeng", "steering-vectors"),
)
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")


def main() -> None:
    """Run the scripts named as arguments, or all; sections of the others stay as they are."""
    chosen = sys.argv[1:] or sorted(path.stem for path in HERE.glob("*.py") if path.stem not in {"measure", "record"})
    target = HERE / "RESULTS.md"
    for name in chosen:
        script = HERE / f"{name}.py"
        done = subprocess.run(
            [sys.executable, str(script)], env={**os.environ, **ONE_THREAD}, capture_output=True, text=True, check=False
        )
        if done.returncode:
            sys.exit(f"{name} failed:\n{done.stderr}")
        summary = (ast.get_docstring(ast.parse(script.read_text(encoding="utf-8"))) or "").splitlines()[0]
        sections = _sections(target.read_text(encoding="utf-8")) if target.exists() else {}
        sections[name] = f"{summary}\n\n{_environment()}\n\n{done.stdout.strip()}\n"
        text = "".join(f"\n## {title}\n\n{body}" for title, body in sorted(sections.items()))
        target.write_text(f"# Results\n\nRatios below 1 mean that ours is faster. `make bench` repeats this.\n{text}")


def _sections(text: str) -> dict[str, str]:
    parts = text.split("\n## ")[1:]
    return {part.partition("\n")[0]: part.partition("\n\n")[2].rstrip("\n") + "\n" for part in parts}


def _environment() -> str:
    versions = []
    for package in PACKAGES:
        try:
            versions.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            continue
    machine = f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}, Python {platform.python_version()}"
    return f"{datetime.now(UTC):%d %B %Y}; {machine}, one thread; {', '.join(versions)}."


if __name__ == "__main__":
    main()
