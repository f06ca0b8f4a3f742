"""How the product of a balanced factorisation moves: the flow of matrices that gradient descent on factors follows.

For W_{j+1}^T W_{j+1} = W_j W_j^T, which small starts come near to and the flow keeps (Arora et al. 2019),

(1)  dP/dt = -sum over j = 1 ... D of (P P^T)^((D - j) / D) grad (P^T P)^((j - 1) / D)
(2)  ds_r/dt = -D s_r^(2 - 2/D) u_r^T grad v_r

for the singular values s_r of P with vectors u_r, v_r. A large singular value moves fast; vectors turn the slower the
further apart the singular values are, which is what makes a wrong subspace hard to leave.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["product_velocity", "singular_value_velocity"]


def product_velocity(
    product: Float[Tensor, "*runs n n"], gradient: Float[Tensor, "*runs n n"], depth: int
) -> Float[Tensor, "*runs n n"]:
    """dP/dt of equation (1).

    Parameters
    ----------
    product, gradient
        P and the gradient of the loss with respect to P.
    depth
        D, the number of factors.
    """
    left, values, right = _decomposed(product, gradient, depth)
    along = left.mT @ gradient @ right.mT
    powers = [values ** (2 * j / depth) for j in range(depth)]
    factor = sum(powers[depth - 1 - j][..., :, None] * powers[j][..., None, :] for j in range(depth))
    return -(left @ (factor * along) @ right)


def singular_value_velocity(
    product: Float[Tensor, "*runs n n"], gradient: Float[Tensor, "*runs n n"], depth: int
) -> Float[Tensor, "*runs n"]:
    """ds_r/dt of equation (2), the largest singular value first."""
    left, values, right = _decomposed(product, gradient, depth)
    return -depth * values ** (2 - 2 / depth) * (left.mT @ gradient @ right.mT).diagonal(dim1=-2, dim2=-1)


def _decomposed(product: Tensor, gradient: Tensor, depth: int) -> tuple[Tensor, Tensor, Tensor]:
    if depth < 1:
        raise ValueError(f"depth must be 1 or more; got {depth}")
    if product.shape != gradient.shape or product.dim() < 2 or product.shape[-1] != product.shape[-2]:
        raise ValueError(
            f"product and gradient must be square and alike; got {tuple(product.shape)}, {tuple(gradient.shape)}"
        )
    left, values, right = torch.linalg.svd(product)
    return left, values, right
