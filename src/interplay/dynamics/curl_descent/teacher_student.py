"""Two-layer students of two-layer teachers, many networks at once along a leading axis.

Every network of the axis has its own weights, teacher and gains, so seeds, flipped fractions, learning rules and scales
of one architecture train together as one batch of matrix products.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["Directions", "Nonlinearity", "TwoLayerTeacherStudent", "gaussian_inputs"]

Nonlinearity = Literal["linear", "tanh", "relu"]


class Directions(NamedTuple):
    """Directions of steepest ascent of both weights, each of its weight's shape, and the loss (batch,)."""

    weight1: Tensor
    weight2: Tensor
    loss: Tensor


class TwoLayerTeacherStudent(nn.Module):
    """Students y = phi(W2 phi(W1 x)), without biases, each with a teacher of the same form.

    Parameters
    ----------
    weight1, weight2
        Students' first weights W1, (batch, hidden, inputs) and W2, (batch, outputs, hidden).
    teacher_weight1, teacher_weight2
        Weights of the teachers, whose number of hidden units may differ.
    nonlinearity
        phi of the hidden units and, as in the published runs, of the outputs too.
    output_derivative
        Whether the error is multiplied by phi' at the output, as the gradient asks; the published rule leaves it out.

    Raises
    ------
    ValueError
        If shapes, dtypes or devices do not fit together.
    """

    def __init__(
        self,
        weight1: Float[Tensor, "batch hidden inputs"],
        weight2: Float[Tensor, "batch outputs hidden"],
        teacher_weight1: Float[Tensor, "batch teacher_hidden inputs"],
        teacher_weight2: Float[Tensor, "batch outputs teacher_hidden"],
        *,
        nonlinearity: Nonlinearity = "linear",
        output_derivative: bool = False,
    ) -> None:
        super().__init__()
        if nonlinearity not in get_args(Nonlinearity):
            raise ValueError(f"nonlinearity must be one of {', '.join(get_args(Nonlinearity))}; got {nonlinearity!r}")
        _check_shapes(weight1, weight2, teacher_weight1, teacher_weight2)
        self.weight1 = nn.Parameter(weight1.detach().clone())
        self.weight2 = nn.Parameter(weight2.detach().clone())
        self.register_buffer("teacher_weight1", teacher_weight1.detach().clone())
        self.register_buffer("teacher_weight2", teacher_weight2.detach().clone())
        self.nonlinearity = nonlinearity
        self.output_derivative = output_derivative

    teacher_weight1: Tensor
    teacher_weight2: Tensor

    @classmethod
    def draw(
        cls,
        inputs: int,
        hidden: int,
        *,
        batch: int = 1,
        outputs: int = 1,
        scale: float | Float[Tensor, " batch"] = 1.0,
        teacher_scale: float = 1.0,
        generator: torch.Generator,
        shared: bool = False,
        dtype: torch.dtype = torch.float64,
        **options: object,
    ) -> TwoLayerTeacherStudent:
        """Draw students and teachers of one size: W1 uniform in +-s / sqrt(inputs), W2 in +-s / sqrt(hidden).

        Parameters
        ----------
        scale, teacher_scale
            s of the students, one number or one a network, and of the teachers.
        shared
            Whether all networks start from one draw, as conditions that are to be compared do.
        **options
            `nonlinearity` and `output_derivative`.
        """
        for name, number in (("inputs", inputs), ("hidden", hidden), ("batch", batch), ("outputs", outputs)):
            if number < 1:
                raise ValueError(f"{name} must be 1 or more; got {number}")
        draws = 1 if shared else batch

        def uniform(rows: int, columns: int) -> Tensor:
            unit = torch.rand(draws, rows, columns, dtype=dtype, generator=generator) * 2 - 1
            return (unit / columns**0.5).expand(batch, rows, columns)

        teacher1, teacher2 = uniform(hidden, inputs) * teacher_scale, uniform(outputs, hidden) * teacher_scale
        scales = torch.as_tensor(scale, dtype=dtype).reshape(-1, 1, 1)
        student1, student2 = uniform(hidden, inputs) * scales, uniform(outputs, hidden) * scales
        return cls(student1, student2, teacher1, teacher2, **options)  # type: ignore[arg-type]

    @torch.no_grad()
    def at_teacher(self, perturbation: float = 1e-10) -> TwoLayerTeacherStudent:
        """The same networks with every student on its teacher, all second weights shifted by `perturbation`."""
        return TwoLayerTeacherStudent(
            self.teacher_weight1,
            self.teacher_weight2 + perturbation,
            self.teacher_weight1,
            self.teacher_weight2,
            nonlinearity=self.nonlinearity,
            output_derivative=self.output_derivative,
        )

    def select(self, networks: Tensor) -> TwoLayerTeacherStudent:
        """A copy of some of the networks, by index or mask."""
        return TwoLayerTeacherStudent(
            self.weight1[networks],
            self.weight2[networks],
            self.teacher_weight1[networks],
            self.teacher_weight2[networks],
            nonlinearity=self.nonlinearity,
            output_derivative=self.output_derivative,
        )

    @property
    def inputs(self) -> int:
        """Number of inputs M."""
        return self.weight1.shape[2]

    @property
    def hidden(self) -> int:
        """Number of hidden units N of the students."""
        return self.weight1.shape[1]

    def forward(self, x: Float[Tensor, "*batch points inputs"]) -> Float[Tensor, "batch points outputs"]:
        """Outputs of all students for inputs that they share, (points, inputs), or for their own."""
        return self._activate(self.weight2 @ self.hidden_activity(x)).mT

    def targets(self, x: Float[Tensor, "*batch points inputs"]) -> Float[Tensor, "batch points outputs"]:
        """Outputs of all teachers."""
        self.check_inputs(x)
        hidden = self._activate(self.teacher_weight1 @ x.mT)
        return self._activate(self.teacher_weight2 @ hidden).mT

    def loss(self, x: Float[Tensor, "*batch points inputs"]) -> Float[Tensor, " batch"]:
        """Half the mean squared error over points and outputs, one number a network."""
        return (self(x) - self.targets(x)).square().mean((1, 2)) / 2

    def check_inputs(self, x: Tensor) -> None:
        """Refuse inputs that do not fit the networks, with a ValueError."""
        if x.shape[-1] != self.inputs or x.dim() not in (2, 3) or (x.dim() == 3 and len(x) != len(self.weight1)):
            raise ValueError(
                f"inputs must have shape (points, {self.inputs}) or ({len(self.weight1)}, points, {self.inputs}); "
                f"got {tuple(x.shape)}"
            )

    def hidden_activity(self, x: Float[Tensor, "*batch points inputs"]) -> Float[Tensor, "batch hidden points"]:
        """phi(W1 x) of all students."""
        self.check_inputs(x)
        return self._activate(self.weight1 @ x.mT)

    def directions(
        self,
        x: Float[Tensor, "*batch points inputs"],
        targets: Float[Tensor, "batch points outputs"],
        feedback: Float[Tensor, "batch hidden outputs"] | None = None,
    ) -> Directions:
        """Steepest ascent of both layers and the loss: for W2 mean(e h^T), for W1 mean((W2^T e * phi'(W1 x)) x^T).

        Parameters
        ----------
        feedback
            Fixed matrices in the place of W2^T: direct feedback alignment.
        """
        hidden = self.hidden_activity(x)
        output = self._activate(self.weight2 @ hidden)
        error = output - targets.mT
        loss = error.square().mean((1, 2)) / 2
        error = error / x.shape[-2]
        if self.output_derivative:
            error = self._times_slope(error, output)
        returned = (self.weight2.mT if feedback is None else feedback) @ error
        returned = self._times_slope(returned, hidden)
        return Directions(returned @ x, error @ hidden.mT, loss)

    def population_directions(
        self,
        teacher: Float[Tensor, "batch outputs inputs"],
        covariance: Float[Tensor, "*batch inputs inputs"] | float,
        feedback: Float[Tensor, "batch hidden outputs"] | None = None,
    ) -> Directions:
        """The same for a linear network and inputs of a given covariance, a number for white ones, in closed form.

        Parameters
        ----------
        teacher
            Product of the teachers' weights.
        """
        difference = self.weight2 @ self.weight1 - teacher
        weighted, loss = _weighted(difference, covariance)
        returned = self.weight2.mT if feedback is None else feedback
        outer = returned * weighted if len(weighted[0]) == 1 else returned @ weighted  # the same for one output, faster
        return Directions(outer, weighted @ self.weight1.mT, loss)

    def population_loss(
        self,
        teacher: Float[Tensor, "batch outputs inputs"],
        covariance: Float[Tensor, "*batch inputs inputs"] | float,
    ) -> Float[Tensor, " batch"]:
        """The loss alone."""
        return _weighted(self.weight2 @ self.weight1 - teacher, covariance)[1]

    def _activate(self, drive: Tensor) -> Tensor:
        if self.nonlinearity == "linear":
            return drive
        return drive.tanh() if self.nonlinearity == "tanh" else drive.relu()

    def _times_slope(self, signal: Tensor, activity: Tensor) -> Tensor:
        """signal * phi'(drive), from phi(drive): PyTorch's own backward kernels, one pass over memory."""
        if self.nonlinearity == "linear":
            return signal
        if self.nonlinearity == "tanh":
            return torch.ops.aten.tanh_backward(signal, activity)
        return torch.ops.aten.threshold_backward(signal, activity, 0)


def gaussian_inputs(
    points: int, inputs: int, *, generator: torch.Generator, dtype: torch.dtype = torch.float64
) -> Float[Tensor, "points inputs"]:
    """Points with independent normal entries of variance 1/2, as published."""
    return torch.randn(points, inputs, dtype=dtype, generator=generator) / 2**0.5


def _weighted(difference: Tensor, covariance: Tensor | float) -> tuple[Tensor, Tensor]:
    """Difference of the linear maps times the covariance, and half its mean square over the inputs."""
    weighted = difference * covariance if isinstance(covariance, float) else difference @ covariance
    return weighted, (difference * weighted).sum((1, 2)) / (2 * difference.shape[1])


def _check_shapes(weight1: Tensor, weight2: Tensor, teacher1: Tensor, teacher2: Tensor) -> None:
    tensors = {"weight1": weight1, "weight2": weight2, "teacher_weight1": teacher1, "teacher_weight2": teacher2}
    for name, tensor in tensors.items():
        if tensor.dim() != 3:
            raise ValueError(f"{name} must have three dimensions, the networks first; got shape {tuple(tensor.shape)}")
        if tensor.dtype != weight1.dtype or tensor.device != weight1.device:
            raise ValueError(
                f"{name} is {tensor.dtype} on {tensor.device}, weight1 {weight1.dtype} on {weight1.device}"
            )
    batch, hidden, inputs = weight1.shape
    outputs, teacher_hidden = weight2.shape[1], teacher1.shape[1]
    expected = {
        "weight2": (batch, outputs, hidden),
        "teacher_weight1": (batch, teacher_hidden, inputs),
        "teacher_weight2": (batch, outputs, teacher_hidden),
    }
    for name, shape in expected.items():
        if tuple(tensors[name].shape) != shape:
            raise ValueError(
                f"{name} must have shape {shape} to fit weight1 {tuple(weight1.shape)}; "
                f"got {tuple(tensors[name].shape)}"
            )
