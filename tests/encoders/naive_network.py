"""CTR-GCN as loops over subsets, pairs of joints, frames and kernel taps, read straight from an official state dict.

Slow on purpose. A batch norm is its formula, a convolution a matrix times one frame's vector. Tensors are (B, C, T, V).
"""

from __future__ import annotations

import torch

EPS = 1e-5


def norm(x, state, name, training):
    """Batch norm of (B, C, ...) over everything but channels."""
    axes = [axis for axis in range(x.dim()) if axis != 1]
    if training:
        mean, var = x.mean(dim=axes), x.var(dim=axes, unbiased=False)
    else:
        mean, var = state[f"{name}.running_mean"], state[f"{name}.running_var"]
    shape = [1, -1] + [1] * (x.dim() - 2)
    scale = state[f"{name}.weight"] / torch.sqrt(var + EPS)
    return (x - mean.view(shape)) * scale.view(shape) + state[f"{name}.bias"].view(shape)


def along_time(x, state, name, stride=1, dilation=1):
    """Convolution along frames, tap by tap, out-of-range frames being zero."""
    weight, bias = state[f"{name}.weight"][..., 0], state[f"{name}.bias"]
    taps = weight.shape[2]
    frames = []
    for t in range(0, x.shape[2], stride):
        total = bias.view(1, -1, 1).expand(x.shape[0], -1, x.shape[3])
        for tap in range(taps):
            source = t + (tap - taps // 2) * dilation
            if 0 <= source < x.shape[2]:
                total = total + weight[:, :, tap] @ x[:, :, source]
        frames.append(total)
    return torch.stack(frames, dim=2)


def graph_conv(x, state, name, training):
    """One joint at a time collects from every joint in every subset."""
    graph, joints = state[f"{name}.PA"], x.shape[3]
    columns = [0.0] * joints
    for subset in range(3):
        part = f"{name}.convs.{subset}"
        query = along_time(x, state, f"{part}.conv1").mean(dim=2)
        key = along_time(x, state, f"{part}.conv2").mean(dim=2)
        values = along_time(x, state, f"{part}.conv3")
        weight, bias = state[f"{part}.conv4.weight"][:, :, 0, 0], state[f"{part}.conv4.bias"]
        for u in range(joints):
            for v in range(joints):
                relation = torch.tanh(query[:, :, u] - key[:, :, v]) @ weight.T + bias
                strength = state[f"{name}.alpha"] * relation + graph[subset, u, v]
                columns[u] = columns[u] + strength[:, :, None] * values[:, :, :, v]
    y = norm(torch.stack(columns, dim=3), state, f"{name}.bn", training)
    if f"{name}.down.0.weight" in state:
        x = norm(along_time(x, state, f"{name}.down.0"), state, f"{name}.down.1", training)
    return torch.clamp(y + x, min=0)


def branches(x, state, name, stride, training):
    """The four temporal branches."""
    out = []
    for branch in range(3):
        y = norm(along_time(x, state, f"{name}.{branch}.0"), state, f"{name}.{branch}.1", training).clamp(min=0)
        if branch < 2:
            y = along_time(y, state, f"{name}.{branch}.3.conv", stride, dilation=branch + 1)
            out.append(norm(y, state, f"{name}.{branch}.3.bn", training))
        else:
            frames = [y[:, :, max(0, t - 1) : t + 2].amax(dim=2) for t in range(0, y.shape[2], stride)]
            out.append(norm(torch.stack(frames, dim=2), state, f"{name}.2.4", training))
    out.append(norm(along_time(x, state, f"{name}.3.0", stride), state, f"{name}.3.1", training))
    return torch.cat(out, dim=1)


def naive_ctrgcn(x, state, strides, training):
    """(N, C, T, V, M) -> (N, K); ``strides`` has one entry a unit."""
    n, c, t, v, m = x.shape
    flat = torch.stack([x[:, k, :, j, i] for i in range(m) for j in range(v) for k in range(c)], dim=1)
    flat = norm(flat, state, "data_bn", training)
    bodies = []
    for clip in range(n):
        for person in range(m):
            channels = [torch.stack([flat[clip, (person * v + j) * c + k] for j in range(v)], dim=1) for k in range(c)]
            bodies.append(torch.stack(channels))
    y = torch.stack(bodies)
    for number, stride in enumerate(strides, start=1):
        z = graph_conv(y, state, f"l{number}.gcn1", training)
        z = branches(z, state, f"l{number}.tcn1.branches", stride, training)
        if f"l{number}.residual.conv.weight" in state:
            short = along_time(y, state, f"l{number}.residual.conv", stride)
            z = z + norm(short, state, f"l{number}.residual.bn", training)
        elif number > 1:
            z = z + y
        y = z.clamp(min=0)
    feature = y.mean(dim=(2, 3)).view(n, m, -1).mean(dim=1)
    return feature @ state["fc.weight"].T + state["fc.bias"]
