"""A pretended GPU: tensors that say cuda:0, lie on the CPU, and refuse to meet tensors of the CPU.

Where there is no GPU, this is how tests tell that code keeps its tensors on the device that it was
given: an operation that a GPU would refuse, as some of its tensors lie elsewhere, is refused here,
and results are those of the CPU. It says nothing of speed, memory, or how a GPU rounds.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map_only

_GPU = torch.device("cuda:0")
_MAKERS = (torch.tensor, torch.as_tensor, torch.asarray)
_INDEXING = (torch.Tensor.__getitem__, torch.Tensor.__setitem__)
_MAY_MIX = ("aten::_to_copy", "aten::copy_")  # that is how tensors come to a GPU and back
_MAY_INDEX = ("aten::index.Tensor", "aten::index_put", "aten::_index_put_impl_")


class OnGpu(torch.Tensor):
    """A tensor on the pretended GPU."""

    inner: torch.Tensor
    made = 0

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> OnGpu:
        found = torch.Tensor._make_wrapper_subclass(
            cls, inner.size(), strides=inner.stride(), storage_offset=inner.storage_offset(),
            dtype=inner.dtype, device="meta",
        )  # fmt: skip
        found.inner = inner
        OnGpu.made += 1
        return found

    @property
    def device(self) -> torch.device:
        return _GPU

    def __repr__(self) -> str:  # type: ignore[override]
        return f"OnGpu({self.inner})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


def _is_gpu(device: object) -> bool:
    return isinstance(device, str | torch.device) and torch.device(device).type in ("cuda", "meta")


def _run(func: Any, args: Any, kwargs: Any) -> Any:
    """Do an operation on the CPU, if a GPU would do it."""
    tensors = [a for a in tree_flatten((args, kwargs))[0] if isinstance(a, torch.Tensor)]
    if any(a.device.type == "meta" for a in tensors):
        raise RuntimeError(f"{func} got a tensor without values")
    there = [a for a in tensors if isinstance(a, OnGpu)]
    name = f"{func._schema.name}.{func._schema.overload_name}"
    elsewhere = [a for a in tensors if not isinstance(a, OnGpu) and a.dim() > 0]
    if there and elsewhere and not name.startswith(_MAY_MIX):
        values = args[2] if len(args) > 2 else args[0]
        is_index = name.startswith(_MAY_INDEX) and isinstance(args[0], OnGpu)
        if not (is_index and (isinstance(values, OnGpu) or values.dim() == 0)):
            raise RuntimeError(f"{name} got tensors of a GPU and of the CPU")
    wanted = kwargs.get("device")
    generator = kwargs.get("generator")
    if generator is not None and (there or _is_gpu(wanted)):
        raise RuntimeError(f"{name} got a generator of the CPU for a GPU")
    if wanted is not None:
        kwargs = kwargs | {"device": torch.device("cpu")}
    args, kwargs = tree_map_only(OnGpu, lambda one: one.inner, (args, kwargs))
    found = func(*args, **kwargs)
    if "conj" in name or "neg_view" in name:
        found = found.resolve_conj().resolve_neg()
    if not (there if wanted is None else _is_gpu(wanted)):
        return found
    known = {id(one.inner): one for one in there}
    return tree_map_only(torch.Tensor, _chosen(known), found)


def _chosen(known: dict[int, OnGpu]) -> Any:
    """Give a result on the GPU; what was changed in place is the tensor that it was."""

    def wrapped(one: torch.Tensor) -> torch.Tensor:
        if isinstance(one, OnGpu):
            return one
        return known[id(one)] if id(one) in known else OnGpu(one)

    return wrapped


def _with_tensors(index: Any) -> Any:
    """Turn the lists of an index into tensors."""
    if isinstance(index, tuple):
        return tuple(_with_tensors(one) for one in index)
    return torch.tensor(index) if isinstance(index, list) else index


class _Dispatch(TorchDispatchMode):
    """Also for operations that make tensors."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


class _Calls(TorchFunctionMode):
    """What would ask a GPU before it comes to an operation."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        is_gpu = _is_gpu(kwargs.get("device"))
        if func in _MAKERS and is_gpu:
            del kwargs["device"]
            return func(*args, **kwargs).to(_GPU)
        if func is torch.Tensor.new_tensor and isinstance(args[0], OnGpu):
            return torch.tensor(args[1], dtype=kwargs.get("dtype", args[0].dtype)).to(_GPU)
        if func is torch.Tensor.tolist and isinstance(args[0], OnGpu):
            return args[0].inner.tolist()
        if func is torch.Tensor.numpy and isinstance(args[0], OnGpu):
            raise TypeError("a tensor of a GPU has no numpy()")
        if func in _INDEXING and isinstance(args[0], OnGpu):
            args = (args[0], _with_tensors(args[1]), *args[2:])  # lists would lose their values
        if is_gpu:
            kwargs["device"] = _GPU
        if func is torch.Tensor.to:
            args = tuple(_GPU if _is_gpu(a) else a for a in args)
        return func(*args, **kwargs)


@contextlib.contextmanager
def pretended_gpu() -> Iterator[None]:
    """Pretend that there is a GPU, in this thread and in those that are started in it."""
    run = threading.Thread.run

    def with_gpu(thread: threading.Thread) -> None:
        with _Dispatch(), _Calls():
            run(thread)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "_lazy_init", lambda: None)
        patch.setattr(torch.cuda, "is_available", lambda: True)
        patch.setattr(torch.cuda, "device_count", lambda: 1)
        patch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda *_: None)
        patch.setattr(torch, "inference_mode", lambda mode=True: torch.set_grad_enabled(not mode))
        patch.setattr(threading.Thread, "run", with_gpu)
        with _Dispatch(), _Calls():
            yield
