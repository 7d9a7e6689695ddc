"""A linear layer whose rows do not depend on how many rows there are.

"The same seed gives the same captions, alone or in any batch" fails where a matrix product adds
its terms in another order for another number of rows. On CPUs (MKL, oneDNN) the order was seen to
change for long sums (over 384 terms in bfloat16, over 512 in float32) and for fewer than 16 rows.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

LONGEST_SUM = 256
FEWEST_ROWS = 16


class StableLinear(nn.Linear):
    """nn.Linear that, outside training, sums in parts of 256 terms and never over too few rows.

    The parameters are those of nn.Linear. In training, where nothing hangs on the last bit, it is
    one matrix product.
    """

    def forward(self, input: Tensor) -> Tensor:
        """(..., in_features) -> (..., out_features)."""
        if self.training:
            return F.linear(input, self.weight, self.bias)
        rows = input.reshape(-1, self.in_features)  # (N, I)
        count = len(rows)
        if count < FEWEST_ROWS:
            rows = F.pad(rows, (0, 0, 0, FEWEST_ROWS - count))  # (16, I)
        output = stable_linear(rows, self.weight, self.bias)[:count]  # (N, O)
        return output.reshape(*input.shape[:-1], self.out_features)  # (..., O)


def stable_linear(rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """rows (N, I) times weight (O, I) plus bias, summed in parts of at most 256 terms: (N, O)."""
    parts = zip(rows.split(LONGEST_SUM, dim=1), weight.split(LONGEST_SUM, dim=1), strict=True)
    first_rows, first_weight = next(parts)
    output = F.linear(first_rows, first_weight, bias)  # (N, O)
    for part_rows, part_weight in parts:
        output = torch.addmm(output, part_rows, rearrange(part_weight, "o i -> i o"))
    return output
