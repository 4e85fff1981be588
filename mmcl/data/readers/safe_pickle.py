"""Pickles from strangers: plain containers and NumPy arrays come out, and no code of theirs ever runs.

A pickle is a program. Here it may only use the operations that build text, numbers, lists, tuples, dictionaries and
sets, and the few functions by which NumPy describes an array, in our own version. Any other name that it asks for is
refused, and so is whatever would come out much larger than the file is.
"""

from __future__ import annotations

import math
import pickle
import pickletools
import re
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np

from mmcl.common.errors import UserError
from mmcl.data.readers.plain_text import packed_by

# Operations that neither call nor look up anything, by their names in `pickletools`.
_PLAIN = """PROTO FRAME STOP MARK POP POP_MARK MEMOIZE PUT BINPUT LONG_BINPUT GET BINGET LONG_BINGET NONE NEWTRUE
NEWFALSE INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8
BINBYTES SHORT_BINBYTES BINBYTES8 EMPTY_LIST LIST APPEND APPENDS EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_DICT
EMPTY_SET GLOBAL STACK_GLOBAL REDUCE"""
# What takes one byte in the file and much more in memory: bytes of the container that each of them makes.
_COSTS = {"EMPTY_SET": 256, "FROZENSET": 256, "MARK": 64, "EMPTY_DICT": 64, "DICT": 64, "EMPTY_LIST": 64, "LIST": 64}
_COSTS |= {"TUPLE": 64, "TUPLE1": 64, "TUPLE2": 64, "TUPLE3": 64}
_GROWTH, _FLOOR = 4, 1 << 20  # containers and arrays may come to 4 times the file's size, and 1 MiB
_BUFFERED = 1 << 16  # bytes: a shorter read need not be clamped
_NAMES = {ord(operation.code): operation.name for operation in pickletools.opcodes}
_NUMBERS = re.compile(r"b1|[iufSU]\d{1,6}")
_TOKEN = object()  # what a class becomes that is only ever an argument: it can be handed on, not called


class Refused(Exception):
    """The file asks for something that no skeleton needs; the message says what."""


def load_pickle(path: Path) -> Any:
    """Load a pickle of plain containers and NumPy arrays of numbers. It takes 2 to 3 times the file's size in memory.

    Raises:
        UserError: no such file, not a pickle, cut off, or it asks for anything else, which is named.
    """
    if not path.is_file():
        raise UserError(f"{path}: {'not a file' if path.exists() else 'no such file'}; --source is the .pkl file")
    with open(path, "rb") as file:
        if what := packed_by(file.read(8)):
            raise UserError(f"{path}: no pickle, but {what}")
        file.seek(0)
        try:
            return _Unpickler(file, path.stat().st_size).load()
        except Refused as error:
            raise UserError(
                f"{path}: the file {error}: not loaded, only NumPy arrays and plain containers are"
            ) from error
        except Exception as error:  # what a damaged pickle raises depends on where it is damaged
            raise UserError(f"{path}: not a pickle, damaged or cut off ({type(error).__name__})") from error


class _Clamped:
    """A file that is never asked for more bytes than it has left: a huge announced length allocates nothing."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self.file, self.size, self.readline = file, size, file.readline

    def read(self, count: int) -> bytes:
        return self.file.read(count if 0 <= count < _BUFFERED else max(0, min(count, self.size - self.file.tell())))


class _Operations(dict[int, Callable[[Any], None]]):
    """Operation code -> method; the file is refused where it uses another."""

    def __missing__(self, code: int) -> Callable[[Any], None]:
        raise Refused(f"is no pickle, or uses the operation {_NAMES.get(code, code)}")


class _Unpickler(pickle._Unpickler):
    """The standard library's own unpickler in Python, with most of it taken out.

    Not the C one: that one allocates what a memo index or a length announces before it looks at the file, and none
    of its steps can be replaced.
    """

    stack: list[Any]
    append: Callable[[Any], None]
    pop_mark: Callable[[], list[Any]]
    read: Callable[[int], bytes]

    def __init__(self, file: IO[bytes], size: int) -> None:
        super().__init__(_Clamped(file, size))
        self.allowance = _GROWTH * size + _FLOOR
        self.known: dict[str, Any] = {
            "numpy.core.multiarray._reconstruct": lambda *_: np.empty(0, dtype=np.int8),
            "numpy.core.multiarray.scalar": lambda dtype, data: self.array((), dtype, data)[()],
            "numpy.core.numeric._frombuffer": self.from_buffer,
            "numpy.dtype": _dtype,
            "_codecs.encode": self.encode,
            "builtins.bytes": lambda: b"",
            "builtins.set": partial(self.keys, set),
            "builtins.frozenset": partial(self.keys, frozenset),
            "collections.OrderedDict": lambda: {},
            "collections.defaultdict": lambda *_: {},
            **dict.fromkeys(("numpy.ndarray", "builtins.list", "builtins.dict", "builtins.int"), _TOKEN),
        }

    def charge(self, amount: int) -> None:
        """Count memory that may grow faster than the file is read."""
        self.allowance -= amount
        if self.allowance < 0:
            raise Refused("would come out much larger than it is")

    def find_class(self, module: str, name: str) -> Any:
        """Our version of a function of NumPy's, or a refusal."""
        module = module.replace("numpy._core", "numpy.core").replace("__builtin__", "builtins")
        try:
            return self.known[f"{module}.{name}"]
        except KeyError:
            raise Refused(f"asks for {ascii(f'{module}.{name}')[1:-1]:.80}") from None

    def array(self, shape: Any, dtype: Any, data: Any) -> np.ndarray:
        """A view on bytes, which must be exactly the numbers of an array of that shape."""
        if not isinstance(dtype, np.dtype) or type(data) is not bytes:  # an array of objects comes with a list of them
            raise Refused("asks for an array of something else than numbers")
        if type(shape) is not tuple or len(shape) > 8 or not all(type(n) is int and n >= 0 for n in shape):
            raise Refused("asks for an array without a shape")
        if math.prod(shape) * dtype.itemsize != len(data) or not dtype.itemsize:
            raise Refused(f"announces an array of another size than its {len(data)} bytes")
        self.charge(len(data))
        return np.frombuffer(data, dtype).reshape(shape) if data else np.zeros(shape, dtype)

    def from_buffer(self, data: Any, dtype: Any, shape: Any, order: Any, axes: Any = None) -> np.ndarray:
        """An array of protocol 5."""
        flat = self.array(shape, dtype, data).reshape(-1)
        return flat.reshape(shape).transpose(axes) if order == "K" else flat.reshape(shape, order=order)

    def encode(self, text: str, encoding: str) -> bytes:
        """How protocols 0 to 2 write bytes."""
        self.charge(len(text))
        if encoding != "latin1":
            raise Refused("asks for an encoding of text")
        return text.encode("latin1")

    def keys(self, kind: Callable[[Iterable[Any]], Any], items: list[Any]) -> Any:
        """A set or frozen set."""
        self.charge(64 * len(items))
        return kind(map(_key, items))

    def load_bytearray8(self) -> None:
        """Bytes; the library would allocate the announced length first."""
        self.append(self.read(int.from_bytes(self.read(8), "little")))

    def load_build(self) -> None:
        """The second half of an array or a data type; nothing else has a state to be set."""
        state, target = self.stack.pop(), self.stack[-1]
        if isinstance(target, np.dtype) and type(state) is tuple and len(state) > 4:
            if not target.newbyteorder(state[1]).isnative or state[2:5] != (None, None, None):
                raise Refused("asks for an array of something else than native numbers")
        elif isinstance(target, np.ndarray) and type(state) is tuple and len(state) == 5:
            _, shape, dtype, order, data = state
            self.array(shape, dtype, data)
            np.ndarray.__setstate__(target, (1, shape, dtype, bool(order), data))  # type: ignore[arg-type]
        else:
            raise Refused("sets the state of something that is no array")

    def load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        _fill(self.stack[-1], [key, value])

    def load_setitems(self) -> None:
        items = self.pop_mark()
        _fill(self.stack[-1], items)

    def load_dict(self) -> None:
        items = self.pop_mark()
        self.append(_fill({}, items))

    def load_additems(self) -> None:
        items = self.pop_mark()
        set.update(self.stack[-1], map(_key, items))

    def load_frozenset(self) -> None:
        items = self.pop_mark()
        self.append(frozenset(map(_key, items)))


def _dtype(code: str, *_: Any) -> np.dtype[Any]:
    if type(code) is not str or not _NUMBERS.fullmatch(code):
        raise Refused(f"asks for an array of {ascii(code) if type(code) is str else 'a compound type':.40}")
    return np.dtype(code)


def _key(value: Any) -> Any:
    # The hash of nested tuples takes time without end, and whole numbers beyond the machine's can be made to collide.
    if not isinstance(value, (str, bytes, int, np.generic, type(None))) or (
        isinstance(value, int) and value.bit_length() > 63
    ):
        raise Refused(f"uses a {type(value).__name__} as a key")
    return value


def _fill(target: dict[Any, Any], items: list[Any]) -> dict[Any, Any]:
    dict.update(target, zip(map(_key, items[::2]), items[1::2], strict=True))
    return target


def _dispatch() -> _Operations:
    """Method of every operation that is allowed, those that make containers with their cost in front."""
    own, library, plain, table = vars(_Unpickler), pickle._Unpickler.dispatch, _PLAIN.split(), _Operations()
    for code, name in _NAMES.items():
        method = own.get(f"load_{name.lower()}") or (library[code] if name in plain else None)
        if method is not None:
            table[code] = _charged(method, _COSTS[name]) if name in _COSTS else method
    return table


def _charged(method: Callable[[Any], None], cost: int) -> Callable[[_Unpickler], None]:
    def load(unpickler: _Unpickler) -> None:
        unpickler.charge(cost)
        method(unpickler)

    return load


_Unpickler.dispatch = _dispatch()
