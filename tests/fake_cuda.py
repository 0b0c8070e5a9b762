"""A GPU that exists only here: tensors that say `cuda:0` (or `mps:0`) and keep true values.

    with simulated("cuda") as gpu:
        zsad.bench(..., device="cuda")
    gpu.waits, gpu.kernels, gpu.copies ...

The point is what a test on a CPU cannot see otherwise.  An operator that gets a tensor of the
device together with one of the CPU raises, as it does on a GPU (:class:`DeviceMix`); so do
float64 and operators that are lacking on Apple's.  Whatever makes the host wait for the device
(reading a number, a copy from memory that is not pinned, an index of booleans, whose size must be
known) is counted with the line of zsad that caused it, and so are kernels, copies and their bytes.
Values are those of the CPU, so that a run under it must give the same figures.

How it works: :class:`OnDevice` is a wrapper around a CPU tensor.  torch's own code takes it for a
"meta" tensor, for which autograd needs no driver; Python code reads `device` and sees the GPU.
Every operator arrives at :class:`Gpu`, which unwraps, counts, computes and wraps.  Composite
kernels (a sort, a matrix factorisation, attention) count as one.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.flop_counter import flop_registry

from zsad.on_device import forget_constants

ROOT = Path(__file__).parent.parent
OWN = tuple(str(ROOT / name) for name in ("zsad", "methods", "benchmarks"))
MOST_PRODUCTS = 10**10  # multiplications of a product; a larger one is timed, not looked at
MEMORY = 1 << 33  # bytes that the device says are free
H200 = 130 * 10**9  # bytes that are free on an H200
KINDS = ("cuda", "mps")
META = torch.device("meta")

aten = torch.ops.aten
WAITING = {  # the host must know a value, or how large the result is
    aten._local_scalar_dense,
    aten.nonzero,
    aten.masked_select,
    aten._unique2,
    aten.unique_dim,
    aten.unique_consecutive,
    aten.bincount,
    aten.equal,
    aten.repeat_interleave,
    aten.linalg_cholesky,
    aten.linalg_inv,
    aten.linalg_solve,
    aten._linalg_svd,
    aten._linalg_eigh,
    aten.linalg_lstsq,
}
FREE = {  # no kernel: memory only, or another look at the same memory
    aten.empty,
    aten.empty_like,
    aten.empty_strided,
    aten.new_empty,
    aten.new_empty_strided,
    aten.lift_fresh,
    aten.detach,
    aten.alias,
    aten._unsafe_view,
    aten._reshape_alias,
    aten._local_scalar_dense,
    aten.set_,
    aten.resize_,
}
LACKING = {  # of Apple's device in torch 2.5, the oldest one that is supported
    aten._upsample_bilinear2d_aa,
    aten._upsample_bicubic2d_aa,
    aten.cholesky_solve,
    aten._cholesky_solve_helper,
    aten.linalg_cholesky_ex,
    aten._linalg_solve_ex,
    aten.linalg_lstsq,
    aten.unique_dim,
}
BY_THEMSELVES = {  # kernels that a compiler leaves as they are
    aten.mm,
    aten.addmm,
    aten.bmm,
    aten.baddbmm,
    aten.convolution,
    aten.index,
    aten.sort,
    aten.topk,
}
BORDER = 1  # of grid_sampler_2d, the padding that it lacks there, too
INDEXING = {aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_}
COPIES = {aten._to_copy, aten.copy_}


class DeviceMix(RuntimeError):
    """Tensors of the device and of the CPU in one operator."""


class OnDevice(Tensor):
    """A tensor of the simulated device; ``held``: its values, in a tensor on the CPU."""

    held: Tensor
    kind: str
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def __new__(cls, held: Tensor, kind: str) -> OnDevice:
        made: OnDevice = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device="meta",
        )
        made.held, made.kind = held, kind
        return made

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return torch.device(self.kind, 0)

    @property
    def is_cuda(self) -> bool:  # type: ignore[override]
        return self.kind == "cuda"

    @property
    def is_meta(self) -> bool:  # type: ignore[override]
        return False

    def record_stream(self, stream: object) -> None:
        """Nothing is freed while it is in use here."""

    def __repr__(self) -> str:  # type: ignore[override]
        return f"{self.kind}:0 {self.held!r}"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise RuntimeError(f"{func}: a tensor of the simulated device outlived the simulation")


@dataclass(frozen=True)
class Cost:
    """One kernel: its operator, what it multiplies and adds, the bytes of all that it reads and
    writes, and the type of what it computes."""

    name: str
    flop: int
    moved: int
    dtype: torch.dtype


@dataclass
class Gpu(TorchDispatchMode):
    """The simulated device, and what was done to it: counters by line ("zsad/maps.py:12").

    ``waits``: the host waits for the device; ``timers``: it does so to read a clock.  ``up`` and
    ``down``: copies to and from the device, with their bytes in ``up_bytes``, ``down_bytes``.
    ``kernels`` by operator; ``cost`` lists every kernel, if asked for.  Without ``values`` tensors
    of the device have shapes only, for sizes that a CPU would take hours for: what is read from
    them is 1.  ``on_kernel(number)`` is called before every one and may raise.
    """

    kind: str = "cuda"
    memory: int = MEMORY
    waits: Counter[str] = field(default_factory=Counter)
    timers: Counter[str] = field(default_factory=Counter)
    kernels: Counter[str] = field(default_factory=Counter)
    values: bool = True
    up: Counter[str] = field(default_factory=Counter)
    down: Counter[str] = field(default_factory=Counter)
    up_bytes: Counter[str] = field(default_factory=Counter)
    down_bytes: Counter[str] = field(default_factory=Counter)
    shapes: list[tuple[str, torch.dtype, tuple[int, ...]]] = field(default_factory=list)
    cost: list[Cost] | None = None
    on_kernel: Callable[[int], None] = lambda number: None
    _pinned: dict[int, Tensor] = field(default_factory=dict)
    beside: Counter[str] = field(default_factory=Counter)  # copies on a stream of their own
    _streams: list[_Stream] = field(default_factory=list)  # that are entered
    _flying: list[tuple[Tensor, _Stream]] = field(default_factory=list)
    _quiet: int = 0
    _fusing: bool = False
    _open: bool = False  # whether the kernel that is being fused takes more
    _entry: int = 0  # bytes that it reads

    def __post_init__(self) -> None:
        super().__init__()

    __hash__ = object.__hash__

    def clear(self) -> None:
        """Begin to count anew."""
        for counter in (self.waits, self.timers, self.kernels, self.up, self.down, self.beside):
            counter.clear()
        self.up_bytes.clear()
        self.down_bytes.clear()
        self.shapes.clear()
        if self.cost is not None:
            self.cost.clear()

    @property
    def launched(self) -> int:
        """Kernels since :meth:`clear`."""
        return sum(self.kernels.values())

    @property
    def device(self) -> torch.device:
        return torch.device(self.kind, 0)

    # ------------------------------------------------------------------------ operators
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        packet = func.overloadpacket
        leaves = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        ours = any(isinstance(x, OnDevice) for x in leaves)
        where = kwargs.get("device")
        if packet in COPIES:
            return self._copy(func, args, kwargs, leaves)
        if not ours and not self._is_here(where):
            if kwargs.pop("pin_memory", False):
                return self.pin(func(*args, **kwargs))
            return func(*args, **kwargs)
        if where is not None:
            if not self._is_here(where):  # made on the CPU, like one of the device
                return func(*self._held(args), **self._held(kwargs))
            kwargs["device"] = torch.device("cpu" if self.values else "meta")
        self._check(packet, args, leaves)
        self._require(packet, args)
        if packet in WAITING or (packet in INDEXING and self._looks(packet, args)):
            self._wait()
        free = packet in FREE or func.is_view
        joins = self._joins(packet, free)
        if not free and not joins:
            fused = self._fusing and packet not in BY_THEMSELVES
            self._launch("fused" if fused else str(packet).removeprefix("aten."))
        if packet is aten._local_scalar_dense and not self.values:
            return 1
        if packet is aten.mm and _products(*args[:2]) > MOST_PRODUCTS:
            out = args[0].held.new_empty(args[0].shape[0], args[1].shape[1])
        else:
            out = func(*self._held(args), **self._held(kwargs))
        if not free:
            self._price(packet, args, kwargs, out, leaves, joins)
        return self._wrapped(out, args, kwargs)

    def _joins(self, packet: Any, free: bool) -> bool:
        """Whether a compiler makes this operator a part of the kernel before it."""
        if not self._fusing or free:
            return False
        if packet in BY_THEMSELVES:
            self._open = False
            return False
        joins, self._open = self._open, True
        return joins

    @contextmanager
    def fusing(self) -> Iterator[None]:
        """Count as `torch.compile` makes kernels: what lies between two products is one."""
        before, self._fusing, self._open = self._fusing, True, False
        try:
            yield
        finally:
            self._fusing, self._open = before, False

    def compiled(self, function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
        """`torch.compile`: the function as it is, counted as fused."""

        def run(*args: Any, **kwargs: Any) -> Any:
            with self.fusing():
                return function(*args, **kwargs)

        return run

    def _launch(self, name: str) -> None:
        if not self._quiet:
            self.on_kernel(self.launched)
            self.kernels[name] += 1

    def _wait(self) -> None:
        if not self._quiet:
            self.waits[_line()] += 1

    def _is_here(self, where: Any) -> bool:
        """Whether a ``device`` argument means this one; torch's own code says "meta" for it."""
        return where is not None and torch.device(where).type in (self.kind, "meta")

    def _check(self, packet: Any, args: Any, leaves: list[Tensor]) -> None:
        """Raise for a tensor of the CPU beside one of the device, as CUDA does."""
        indices = _indices(args) if packet in INDEXING else []
        for x in leaves:
            assert not x.is_meta or isinstance(x, OnDevice), f"{packet}: a tensor without values"
            if isinstance(x, OnDevice):
                self._require_arrived(x)
                continue
            if x.dim() == 0:
                continue
            if not any(x is i for i in indices):
                raise DeviceMix(
                    f"{packet}: expected all tensors to be on the same device, but found at least "
                    f"two devices, {self.device} and {x.device}"
                )
            self._count_copy(x, up=True)
            self._wait()

    def _require(self, packet: Any, args: Any) -> None:
        """Raise for an operator that Apple's device does not have, as torch does."""
        if self.kind != "mps":
            return
        bordered = packet is aten.grid_sampler_2d and args[3] == BORDER
        if packet in LACKING or bordered:
            raise RuntimeError(f"{packet} is not currently implemented for the MPS device")

    def _require_arrived(self, x: Tensor) -> None:
        """Raise for what another stream is still copying: a GPU would read anything."""
        if not self._streams and any(x is sent for sent, _ in self._flying):
            raise DeviceMix("a tensor is read before the stream that copies it was waited for")

    def wait_for(self, stream: _Stream | None) -> None:
        """Let what was copied on a stream have arrived."""
        self._flying = [(x, on) for x, on in self._flying if on is not stream]

    def _looks(self, packet: Any, args: Any) -> bool:
        """Whether indexing has to know how many values are True."""
        masks = [i for i in _indices(args) if i.dtype in (torch.bool, torch.uint8)]
        if not masks or packet is aten.index:
            return bool(masks)
        value = args[2]  # a mask that takes one value is filled without a look
        return len(_indices(args)) > 1 or value.numel() != 1

    def _held(self, tree: Any) -> Any:
        return tree_map_only(OnDevice, lambda x: x.held, tree)

    def _wrapped(self, out: Any, args: Any, kwargs: Any) -> Any:
        """The results as tensors of the device; what was changed in place is the argument."""
        known = {id(x.held): x for x in tree_leaves((args, kwargs)) if isinstance(x, OnDevice)}

        def wrap(x: Tensor) -> Tensor:
            if isinstance(x, OnDevice):
                return x
            if self.kind == "mps" and x.dtype == torch.float64:
                raise TypeError("Cannot convert a MPS Tensor to float64: it has no such numbers")
            return known[id(x)] if id(x) in known else OnDevice(x, self.kind)

        return tree_map_only(Tensor, wrap, out)

    # --------------------------------------------------------------------------- copies
    def _copy(self, func: Any, args: Any, kwargs: Any, leaves: list[Tensor]) -> Any:
        if func.overloadpacket is aten.copy_:
            into, source = args[0], args[1]
            here, there = isinstance(into, OnDevice), isinstance(source, OnDevice)
            ahead = bool(kwargs.get("non_blocking") or args[2:])
            self._crossing(source, here, there, ahead, into)
            if self.values:
                func(*self._held(args), **self._held(kwargs))
            return into
        source, where = args[0], kwargs.pop("device", None)
        pinned = kwargs.pop("pin_memory", False)
        there = isinstance(source, OnDevice)
        here = there if where is None else self._is_here(where)
        if not self.values and here != there:
            kind = kwargs.get("dtype") or source.dtype
            out = torch.ones(source.shape, dtype=kind, device="meta" if here else "cpu")
        else:
            out = func(self._held(source), **kwargs)
        self._crossing(source, here, there, bool(kwargs.get("non_blocking")), out)
        if here:
            made = self._wrapped(out, (), {})
            if not there and self._streams:
                self.beside[_line()] += 1
                self._flying.append((made, self._streams[-1]))
            return made
        return self.pin(out) if pinned else out

    def _crossing(self, source: Tensor, here: bool, there: bool, ahead: bool, made: Tensor) -> None:
        if here and there:
            joins = self._joins(aten.copy_, False)
            if not joins:
                self._launch("fused" if self._fusing else "copy")
            self._price(aten.copy_, (), {}, made, [source], joins)
        elif here or there:
            self._count_copy(source, up=here)
            if not (here and source.dim() == 0) and not (ahead and self._is_pinned(source)):
                self._wait()

    def _count_copy(self, x: Tensor, up: bool) -> None:
        if self._quiet:
            return
        line, size = _line(), x.numel() * x.element_size()
        (self.up if up else self.down)[line] += 1
        (self.up_bytes if up else self.down_bytes)[line] += size
        if up:
            self.shapes.append((line, x.dtype, tuple(x.shape)))

    def pin(self, x: Tensor) -> Tensor:
        """Count the memory of a tensor among what can be copied without waiting."""
        self._pinned[x.untyped_storage().data_ptr()] = x
        return x

    def _is_pinned(self, x: Tensor) -> bool:
        return not isinstance(x, OnDevice) and x.untyped_storage().data_ptr() in self._pinned

    def _price(
        self, packet: Any, args: Any, kwargs: Any, out: Any, leaves: list[Tensor], joins: bool
    ) -> None:
        if self.cost is None or self._quiet:
            return
        made = [x for x in tree_leaves(out) if isinstance(x, Tensor)]
        flop = 0
        if packet in flop_registry:
            flop = int(flop_registry[packet](*self._held(args), **self._held(kwargs), out_val=out))
        read, written = (sum(x.numel() * x.element_size() for x in t) for t in (leaves, made))
        kind = made[0].dtype if made else torch.float32
        if joins:  # what lies between the first and the last of a fused kernel is never written
            self.cost[-1] = Cost("fused", 0, self._entry + written, kind)
            return
        self._entry = read
        self.cost.append(Cost(str(packet).removeprefix("aten."), flop, read + written, kind))

    @contextmanager
    def as_one(self, cost: Cost) -> Iterator[None]:
        """Count what is done within as one kernel."""
        self._launch(cost.name)
        if self.cost is not None and not self._quiet:
            self.cost.append(cost)
        self._quiet += 1
        try:
            yield
        finally:
            self._quiet -= 1

    # ---------------------------------------------------------------------------- clock
    def synchronize(self, device: Any = None) -> None:
        """`torch.cuda.synchronize`."""
        self.timers[_line()] += 1


def _products(a: Tensor, b: Tensor) -> int:
    return a.shape[0] * a.shape[1] * b.shape[1]


def _indices(args: Any) -> list[Tensor]:
    return [x for x in args[1] if isinstance(x, Tensor)]


def _as_tensors(index: Any) -> Any:
    """An index in which lists are tensors of the CPU, as which they go up."""
    parts = index if isinstance(index, tuple) else (index,)
    made = tuple(torch.tensor(part) if isinstance(part, list) else part for part in parts)
    return made if isinstance(index, tuple) else made[0]


def _line() -> str:
    """The line of zsad that is being carried out, or of who called it."""
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_filename.startswith(OWN) and not _is_helper(frame.f_code.co_filename):
            return f"{Path(frame.f_code.co_filename).relative_to(ROOT)}:{frame.f_lineno}"
        frame = frame.f_back  # type: ignore[assignment]
    return "elsewhere"


def _is_helper(path: str) -> bool:
    """Whether what counts is who called it."""
    return path.endswith("on_device.py")


class _Calls(TorchFunctionMode):
    """What must be seen before torch takes it apart."""

    def __init__(self, gpu: Gpu) -> None:
        self.gpu = gpu

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            return self._attention(*args, **kwargs)
        if func is Tensor.pin_memory:
            return self.gpu.pin(args[0])
        if func is Tensor.is_pinned:
            return self.gpu._is_pinned(args[0])
        if func is Tensor.tolist and isinstance(args[0], OnDevice):
            return args[0].to("cpu").tolist()
        if func is Tensor.cuda:
            return args[0].to(META)
        if func in (Tensor.__getitem__, Tensor.__setitem__) and isinstance(args[0], OnDevice):
            args = (args[0], _as_tensors(args[1]), *args[2:])
        if func in (torch.tensor, torch.as_tensor) and self.gpu._is_here(kwargs.get("device")):
            grad = kwargs.get("requires_grad", False)
            rest = {k: v for k, v in kwargs.items() if k not in ("device", "requires_grad")}
            return func(*args, **rest).to(META).requires_grad_(grad)
        if func is Tensor.to:  # in torch's own words, so that "no change" is no copy
            here = self.gpu._is_here
            args = tuple(
                META if isinstance(a, (str, torch.device)) and here(a) else a for a in args
            )
            if "device" in kwargs and here(kwargs["device"]):
                kwargs = kwargs | {"device": META}
        return func(*args, **kwargs)

    def _attention(self, q: Tensor, k: Tensor, v: Tensor, *rest: Any, **named: Any) -> Tensor:
        tensors = [x for x in (q, k, v, *rest, *named.values()) if isinstance(x, Tensor)]
        if not isinstance(q, OnDevice):
            return F.scaled_dot_product_attention(q, k, v, *rest, **named)
        if not all(isinstance(x, OnDevice) for x in tensors):
            raise DeviceMix("attention: expected all tensors to be on the same device")
        flop = 4 * q.numel() * k.shape[-2]
        moved = sum(x.numel() * x.element_size() for x in (q, k, v, q))
        with self.gpu.as_one(Cost("attention", flop, moved, q.dtype)):
            if torch.is_grad_enabled() and any(x.requires_grad for x in tensors):
                mask = rest[0] if rest else named.pop("attn_mask", None)
                if mask is not None and mask.dtype == torch.bool:  # this one adds what it is given
                    mask = torch.zeros_like(mask, dtype=q.dtype).masked_fill(~mask, -torch.inf)
                return aten._scaled_dot_product_attention_math(q, k, v, mask, **named)[0]
            *front, heads, length, _ = q.shape
            made = q.new_empty((*front, length, heads, v.shape[-1])).transpose(-3, -2)
            if self.gpu.values:
                held = self.gpu._held((q, k, v, rest))
                out = F.scaled_dot_product_attention(*held[:3], *held[3], **self.gpu._held(named))
                made.copy_(OnDevice(out, self.gpu.kind))
        return made  # in memory the heads of a token lie side by side, as fused kernels write them


class _Event:
    """`torch.cuda.Event`: the simulated device is never behind."""

    gpu: Gpu

    def __init__(self, enable_timing: bool = False, **rest: Any) -> None:
        self.timed, self.at = enable_timing, None
        self.stream: Any = None

    def record(self, stream: Any = None) -> None:
        self.at, self.stream = time.perf_counter(), stream

    def query(self) -> bool:
        return True

    def wait(self, stream: Any = None) -> None:
        pass

    def synchronize(self) -> None:
        self.gpu.timers[_line()] += 1

    def elapsed_time(self, end: _Event) -> float:
        assert self.timed
        assert end.timed
        assert self.at is not None
        assert end.at is not None
        return 1e3 * (end.at - self.at)


class _Stream:
    """`torch.cuda.Stream`: everything happens at once, but nothing may be read before its stream
    was waited for."""

    gpu: Gpu

    def __init__(self, *args: Any, **rest: Any) -> None:
        pass

    def __enter__(self) -> _Stream:
        self.gpu._streams.append(self)
        return self

    def __exit__(self, *exc: object) -> None:
        self.gpu._streams.pop()

    def wait_stream(self, other: Any) -> None:
        self.gpu.wait_for(other)

    def wait_event(self, event: _Event) -> None:
        self.gpu.wait_for(event.stream)

    record_event = synchronize = query = lambda self, *args: None


def _driver(gpu: Gpu) -> dict[str, Any]:
    """What `torch.cuda` answers in the simulation."""
    stream = type("Stream", (_Stream,), {"gpu": gpu})
    return {
        "is_available": lambda: gpu.kind == "cuda",
        "is_initialized": lambda: True,
        "_lazy_init": lambda: None,
        "device_count": lambda: int(gpu.kind == "cuda"),
        "current_device": lambda: 0,
        "set_device": lambda device: None,
        "get_device_name": lambda device=None: "simulated",
        "get_device_capability": lambda device=None: (9, 0),
        "is_bf16_supported": lambda *args, **rest: True,
        "mem_get_info": lambda device=None: (gpu.memory, gpu.memory),
        "memory_allocated": lambda device=None: 0,
        "memory_reserved": lambda device=None: 0,
        "set_per_process_memory_fraction": lambda fraction, device=None: None,
        "max_memory_allocated": lambda device=None: 0,
        "reset_peak_memory_stats": lambda device=None: None,
        "empty_cache": lambda: None,
        "synchronize": gpu.synchronize,
        "Event": type("Event", (_Event,), {"gpu": gpu}),
        "Stream": stream,
        "stream": lambda given: given or stream(),
        "current_stream": lambda device=None: stream(),
        "default_stream": lambda device=None: stream(),
        "manual_seed": lambda seed: None,
        "manual_seed_all": lambda seed: None,
        "get_rng_state": lambda device=None: torch.zeros(1, dtype=torch.uint8),
        "get_rng_state_all": lambda: [torch.zeros(1, dtype=torch.uint8)],
        "set_rng_state": lambda state, device=None: None,
        "set_rng_state_all": lambda states: None,
    }


@contextmanager
def simulated(
    kind: str = "cuda", *, cost: bool = False, values: bool = True, memory: int = MEMORY
) -> Iterator[Gpu]:
    """Let torch see a device of ``kind`` ("cuda" or "mps") with ``memory`` bytes within.

    Backward passes work; what is compiled is run as it is and counted as fused; other processes
    see no device."""
    assert kind in KINDS
    gpu = Gpu(kind=kind, cost=[] if cost else None, values=values, memory=memory)
    torch.zeros(1, requires_grad=True).sum().backward()  # autograd's threads, before all else
    forget_constants()
    with ExitStack() as stack:
        stack.callback(forget_constants)  # another simulated device has other ones, or no values
        for name, value in _driver(gpu).items():
            stack.enter_context(patch.object(torch.cuda, name, value))
        stack.enter_context(patch.object(torch, "compile", gpu.compiled))
        stack.enter_context(patch.object(torch.backends.mps, "is_available", lambda: kind == "mps"))
        lifts = torch._C._only_lift_cpu_tensors()
        torch._C._set_only_lift_cpu_tensors(True)
        stack.callback(torch._C._set_only_lift_cpu_tensors, lifts)
        stack.enter_context(_Calls(gpu))
        stack.enter_context(gpu)
        yield gpu
