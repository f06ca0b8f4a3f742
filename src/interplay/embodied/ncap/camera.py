"""Pictures of a swimmer: MuJoCo's renderer where OpenGL is to be had, otherwise the body drawn from its position."""

from __future__ import annotations

import os
import sys
from typing import Any

import mujoco
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from interplay.embodied.ncap.body import SwimmerBody

__all__ = ["Camera", "draw_body"]

_DPI = 100
_BODY, _JOINT, _HEAD = "#0072B2", "#FFFFFF", "#D55E00"


class Camera:
    """Follows a body.

    Parameters
    ----------
    width, height
        In pixels.

    Attributes
    ----------
    renders
        Whether pictures are rendered (True) or drawn (False); None before the first one.
    """

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self.renders: bool | None = None
        self._renderer: Any = None

    def picture(self, body: SwimmerBody) -> NDArray[np.uint8]:
        """Shape (height, width, 3)."""
        if self.renders is None:
            self._renderer = self._open(body)
            self.renders = self._renderer is not None
        if self._renderer is None:
            return self._drawn(body)
        self._renderer.update_scene(body.data, camera="tracking1")
        picture: NDArray[np.uint8] = self._renderer.render()
        return picture

    def close(self) -> None:
        """Release the renderer."""
        if self._renderer is not None:
            self._renderer.close()
        self._renderer, self.renders = None, None

    def _open(self, body: SwimmerBody) -> Any:
        if not _opengl_may_work():
            return None
        model = body.model.mujoco
        model.vis.global_.offwidth = max(model.vis.global_.offwidth, self.width)
        model.vis.global_.offheight = max(model.vis.global_.offheight, self.height)
        try:
            return mujoco.Renderer(model, self.height, self.width)
        except (AttributeError, ImportError, RuntimeError, mujoco.FatalError):
            return None

    def _drawn(self, body: SwimmerBody) -> NDArray[np.uint8]:
        figure = Figure(figsize=(self.width / _DPI, self.height / _DPI), dpi=_DPI)
        axes = figure.add_axes((0, 0, 1, 1))
        outline = body.outline()
        half = 0.06 * len(outline)
        x, y = outline.mean(axis=0)
        axes.set(xlim=(x - half * self.width / self.height, x + half * self.width / self.height))
        axes.set(ylim=(y - half, y + half), facecolor="0.93")
        axes.set_xticks(np.arange(np.ceil(axes.get_xlim()[0] / 0.2), axes.get_xlim()[1] / 0.2) * 0.2)
        axes.set_yticks(np.arange(np.ceil(axes.get_ylim()[0] / 0.2), axes.get_ylim()[1] / 0.2) * 0.2)
        axes.grid(color="white")  # lines that stand still in the water, 0.2 m apart
        draw_body(axes, outline, linewidth=0.02 / (2 * half) * self.height * 72 / _DPI)
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def draw_body(axes: Axes, outline: NDArray[np.float64], *, linewidth: float = 4, alpha: float = 1) -> None:
    """Draw a body from nose to tail into axes in metres.

    Parameters
    ----------
    axes
        What to draw into.
    outline
        Ends of the links, shape (point, 2), as `SwimmerBody.outline` gives them.
    linewidth, alpha
        Of the body, in points.
    """
    x, y = outline.T
    axes.plot(x, y, color=_BODY, linewidth=linewidth, alpha=alpha, solid_capstyle="round", solid_joinstyle="round")
    axes.plot(x[:2], y[:2], color=_HEAD, linewidth=linewidth, alpha=alpha, solid_capstyle="round")
    axes.plot(x[1:-1], y[1:-1], ".", color=_JOINT, markersize=0.45 * linewidth, alpha=alpha)


def _opengl_may_work() -> bool:
    """False where even trying would only print warnings of window systems."""
    chosen = os.environ.get("MUJOCO_GL", "").lower()
    if chosen in {"disable", "disabled", "off", "false", "0"}:
        return False
    windows = bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
    return chosen in {"egl", "osmesa"} or windows or not sys.platform.startswith("linux")
