"""How much memory there is, and how much a flat graph takes."""

import os

import torch
from torch import Tensor, fx


def available(device: torch.device) -> int:
    """Bytes that are free on a device; of a CPU, as its system says, or without end where it does not."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        with open("/proc/meminfo") as facts:
            (line,) = (line for line in facts if line.startswith("MemAvailable:"))
        return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pages = {"SC_AVPHYS_PAGES", "SC_PAGE_SIZE"} & {*getattr(os, "sysconf_names", ())}
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if len(pages) == 2 else 2**62


def most_at_once(graph: fx.Graph) -> int:
    """Bytes of what a graph computes that it holds at once, at the most; its inputs do not count."""
    last_user = {source: node for node in graph.nodes for source in node.all_input_nodes}
    now = most = 0
    for node in graph.nodes:
        now += _bytes(node)
        most = max(most, now)
        now -= sum(_bytes(source) for source in node.all_input_nodes if last_user[source] is node)
    return most


def _bytes(node: fx.Node) -> int:
    """The memory that a node takes for its result; none for a view."""
    value = node.meta.get("val")
    if node.op != "call_function" or not isinstance(value, Tensor):
        return 0
    schema = getattr(node.target, "_schema", None)
    is_view = schema is not None and any(each.alias_info is not None for each in schema.returns)
    return 0 if is_view else value.numel() * value.element_size()


def in_words(size: float) -> str:
    """Bytes for a person.

    >>> in_words(3 * 2**29)
    '1.5 GiB'
    """
    for unit, name in ((2**30, "GiB"), (2**20, "MiB")):
        if size >= unit:
            return f"{size / unit:.1f} {name}"
    return f"{size / 2**10:.1f} KiB"
