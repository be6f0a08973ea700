"""What follows a model's hidden states: pooling, and the modules after it. Computed in float32, with torch.

Source: sentence-transformers 6.2 (`Pooling`, `Dense`, `LayerNorm`, `Normalize`), whose vectors are the same to 1e-6.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from embedkit.errors import EmbedkitError
from embedkit.model import Dense, Head, LayerNorm, PoolingMode

if TYPE_CHECKING:
    from torch import Tensor

Apply = Callable[["Tensor"], "Tensor"]


def load_head(head: Head, device: str) -> Callable[["Tensor", "Tensor"], "Tensor"]:
    """Load the weights of a head. Raises EmbedkitError if they are not all there, with their shapes.

    Returns:
        A function of hidden states (n, tokens, dim) and a mask (n, tokens), which is True at each row's own tokens
        and False at the padding on its right. It gives vectors, float32 (n, dim).
    """
    steps = [_load(step, device) for step in head.steps]

    def apply(hidden: "Tensor", mask: "Tensor") -> "Tensor":
        vectors = pool(hidden, mask, head.pooling)
        for step in steps:
            vectors = step(vectors)
        return vectors[:, : head.dim]

    return apply


def pool(hidden: "Tensor", mask: "Tensor", modes: tuple[PoolingMode, ...]) -> "Tensor":
    """Pool hidden states (n, tokens, dim), padded on the right, to float32 (n, dim * modes)."""
    import torch

    lengths = mask.sum(dim=1, keepdim=True)
    return torch.cat([_pool(hidden, mask[:, :, None], lengths, mode).float() for mode in modes], dim=1)


def _pool(hidden: "Tensor", mask: "Tensor", lengths: "Tensor", mode: PoolingMode) -> "Tensor":
    """Pool by one mode. `mask` is (n, tokens, 1), `lengths` (n, 1)."""
    import torch

    if mode == "cls":
        return hidden[:, 0]
    if mode == "lasttoken":
        # On the device: from a list, torch would make the index on the CPU, and copying it waits for the GPU.
        return hidden[torch.arange(len(hidden), device=hidden.device), lengths[:, 0] - 1]
    if mode == "max":
        return hidden.masked_fill(~mask, float("-inf")).amax(dim=1)
    if mode == "weightedmean":  # the first token has weight 1, the second 2, ...
        weights = mask * torch.arange(1, mask.shape[1] + 1, device=mask.device)[:, None]
        return (hidden.float() * weights).sum(dim=1) / weights.sum(dim=1)
    total = (hidden.float() * mask).sum(dim=1)
    return total / (lengths if mode == "mean" else lengths.float().sqrt())


def _load(step: Any, device: str) -> Apply:
    """The function of a step."""
    import torch

    if isinstance(step, LayerNorm):
        weights = _weights(step, device)
        return lambda x: torch.nn.functional.layer_norm(
            x, (step.width,), weights["norm.weight"], weights["norm.bias"], eps=1e-5
        )
    if isinstance(step, Dense):
        return _dense(step, device)
    return lambda x: torch.nn.functional.normalize(x, dim=-1)


def _dense(step: Dense, device: str) -> Apply:
    import torch

    weights = _weights(step, device)
    activation: Any = getattr(torch.nn, step.activation.rpartition(".")[2])()
    second = weights.get("residual.weight")

    def apply(x: "Tensor") -> "Tensor":
        out: Tensor = activation(torch.nn.functional.linear(x, weights["linear.weight"], weights.get("linear.bias")))
        if step.residual:
            out = out + (x if second is None else torch.nn.functional.linear(x, second))
        return out

    return apply


def _weights(step: Dense | LayerNorm, device: str) -> dict[str, "Tensor"]:
    """The weights of a step, float32 on the device."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = step.folder / "model.safetensors"
    try:
        found = load_file(path)
    except (OSError, SafetensorError) as error:
        raise EmbedkitError(f"{path}: it cannot be read: {error}; fetch the model again") from None
    for name, shape in step.shapes.items():
        if name not in found or list(found[name].shape) != shape:
            there = list(found[name].shape) if name in found else "not there"
            raise EmbedkitError(f"{path}: {name} must have the shape {shape}; it is {there}. Fetch the model again")
    return {name: found[name].float().to(device) for name in step.shapes}
