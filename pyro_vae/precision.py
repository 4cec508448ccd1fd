"""Where numbers are float64: on the device of what they come from, or on the CPU where that has none."""

import torch
from torch import Tensor

_CPU = torch.device("cpu")


def has_float64(device: torch.device) -> bool:
    """Whether a device has float64, which Apple's MPS has not.

    >>> has_float64(torch.device("cpu")), has_float64(torch.device("mps"))
    (True, False)
    """
    return device.type != "mps"


def home(device: torch.device) -> torch.device:
    """The device of the float64 numbers that come from one: itself, or the CPU.

    >>> home(torch.device("cuda", 1)), home(torch.device("mps"))
    (device(type='cuda', index=1), device(type='cpu'))
    """
    return device if has_float64(device) else _CPU


def wide(tensor: Tensor) -> Tensor:
    """The tensor in float64, at `home`.

    >>> wide(torch.ones(2))
    tensor([1., 1.], dtype=torch.float64)
    """
    # in two steps: a copy that changes both would change the type on the device
    return tensor.to(home(tensor.device)).double()


def moved(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on a device, but float64 at its `home`.

    >>> moved(torch.ones(2), torch.device("cpu"))
    tensor([1., 1.])
    """
    return tensor.to(home(device) if tensor.dtype == torch.float64 else device)
