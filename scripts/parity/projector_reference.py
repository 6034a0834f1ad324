"""The projector of the method in PyTorch: the reference for names, shapes and arithmetic of the projector in Rust.

h [B, C, H, W] passes through five residual stages with BatchNorm (batch statistics), the mean over H and W, and one
linear layer, which gives a scale and a shift for each token. AdaIN applies them to the normalised base-word embedding
c_b [W, D]: c_delta = scale * (c_b - mean) / (std + 1e-5) + shift, [B, W, D].
"""

from torch import nn
from torch.nn import functional as F


class Stage(nn.Module):
    """relu(bn2(conv2(relu(bn1(conv1(x))))) + shortcut(x))."""

    def __init__(self, inputs, width, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        changes = stride != 1 or inputs != width
        self.shortcut = (
            nn.Sequential(nn.Conv2d(inputs, width, 1, stride, bias=False), nn.BatchNorm2d(width))
            if changes
            else nn.Identity()
        )

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class Projector(nn.Module):
    """Computes c_delta from h and c_b."""

    def __init__(self, channels, widths, strides, tokens, dim):
        super().__init__()
        self.stages = nn.ModuleList(Stage(i, w, s) for i, w, s in zip([channels, *widths], widths, strides))
        self.linear = nn.Linear(widths[-1], tokens * 2 * dim)
        self.tokens, self.dim = tokens, dim

    def forward(self, h, c_b):
        for stage in self.stages:
            h = stage(h)
        scale, shift = self.linear(h.mean((2, 3))).view(-1, self.tokens, 2, self.dim).unbind(2)
        normalised = (c_b - c_b.mean(-1, keepdim=True)) / (c_b.std(-1, keepdim=True, unbiased=False) + 1e-5)
        return scale * normalised + shift
