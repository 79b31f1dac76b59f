"""Products of stacked matrices whose last bits do not depend on the stack.

With AVX2 a product of matrices in a stack has other last bits for a matrix that does not start on a boundary of 16
bytes, as every second one of 25 × 10 float32 numbers does. With zeros up to a multiple of sixteen columns each starts
on a boundary of 64 bytes; it is also faster, since few columns cost as much as sixteen.
"""

from torch import Tensor
from torch.nn.functional import pad

COLUMNS = 16


def padded(matrix: Tensor) -> Tensor:
    """The matrix `[..., n]` with zero columns up to a multiple of 16."""
    missing = -matrix.shape[-1] % COLUMNS
    return pad(matrix, (0, missing)) if missing else matrix


def first(matrix: Tensor, columns: int) -> Tensor:
    """The first columns of a matrix, side by side in memory; itself where it has no more."""
    return matrix if matrix.shape[-1] == columns else matrix[..., :columns].contiguous()
