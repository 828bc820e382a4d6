"""A pickle machine that executes nothing: names stay names, calls stay calls, and all of it is bounded.

The standard library decodes the opcodes (`pickletools.genops`); this machine gives them a meaning that reaches nothing
outside of the pickle. A global is a `Global`, whatever it names; a call of it is what the `call` hook makes of it, else
a `Call` that only remembers. Keys of mappings that are no strings are replaced by nameless objects, so that nothing
of the file is ever hashed or compared but strings: a few nested tuples can take for ever.
"""

from __future__ import annotations

import pickletools
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_OPERATIONS = 4_000_000
"""Opcodes, and elements that long arguments copy; a checkpoint has about 40 for each tensor."""
MAX_BYTES = 128 << 20
"""Bytes of one pickle; torch keeps the tensors' elements outside of it."""
_SHORT = 16
MAX_GLOBALS = 1000
"""Different classes and functions that are named."""
_RENAMED = {"__builtin__": "builtins", "copy_reg": "copyreg"}  # modules of Python 2, in whose protocol torch writes


class MalformedError(ValueError):
    """What was to be read breaks its own format; the message says how, without the file's name."""


@dataclass(frozen=True, slots=True)
class Global:
    """The name of a class or function, which is not looked up."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(slots=True, eq=False)
class Call:
    """A call that was not made: of what, with what, and the state that the object was to be given."""

    function: Any
    arguments: tuple[Any, ...]
    state: Any = None


class Bounded:
    """A stream that ends after `MAX_BYTES`, so that no opcode can ask for more."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream, self._left = stream, MAX_BYTES

    def read(self, size: int) -> bytes:
        """Return `size` bytes, or none at all where that is more than the bound leaves."""
        return self._taken(self._stream.read(size)) if 0 <= size <= self._left else b""

    def readline(self) -> bytes:
        """Return a line of at most 64 KiB."""
        return self._taken(self._stream.readline(min(self._left, 1 << 16)))

    def _taken(self, data: bytes) -> bytes:
        self._left -= len(data)
        return data


def _inert(function: Global, arguments: tuple[Any, ...]) -> Any:
    return Call(function, arguments)


def _no_persistent(_: Any) -> Any:
    raise MalformedError("it has a persistent id where none belongs")


class Machine:
    """Runs one pickle.

    Args:
        call: what a call of a global gives, from the global and its arguments.
        persistent: what a persistent id stands for.
        limit: opcodes and elements copied.

    Attributes:
        globals: all globals that were named, in order.
    """

    def __init__(
        self,
        call: Callable[[Global, tuple[Any, ...]], Any] = _inert,
        persistent: Callable[[Any], Any] = _no_persistent,
        limit: int = MAX_OPERATIONS,
    ) -> None:
        self.globals: dict[Global, Global] = {}
        self._call, self._persistent = call, persistent
        self._stack: list[Any] = []
        self._marked: list[list[Any]] = []
        self._memo: dict[int, Any] = {}
        self._left = limit

    def run(self, stream: IO[bytes]) -> Any:
        """Return what the pickle at the stream's position stands for; the stream is left behind it.

        Raises:
            MalformedError: it is no pickle, ends early, exceeds the bounds, or uses opcodes that no checkpoint has.
        """
        try:
            for opcode, argument, _ in pickletools.genops(Bounded(stream)):  # type: ignore[arg-type]
                self.spend(1)
                if opcode.name == "STOP":
                    return self._stack.pop()
                self._operations[opcode.name](self, argument)
        except MalformedError:
            raise
        except KeyError as error:
            raise MalformedError(f"its pickle has {error.args[0]!r}, which no checkpoint has") from None
        except (ValueError, IndexError, TypeError, AttributeError, OverflowError) as error:
            raise MalformedError(f"its pickle is broken: {error}") from None
        raise MalformedError("its pickle has no end")

    def spend(self, amount: int) -> None:
        """Count `amount` operations against the bound."""
        self._left -= amount
        if self._left < 0:
            raise MalformedError("its pickle has more operations than any checkpoint")

    # Each operation takes the opcode's argument, which most do not have.

    def _ignore(self, _: Any) -> None:
        """Do nothing."""

    def _push(self, value: Any) -> None:
        self._stack.append(value)

    def _push_none(self, _: Any) -> None:
        self._stack.append(None)

    def _push_true(self, _: Any) -> None:
        self._stack.append(True)

    def _push_false(self, _: Any) -> None:
        self._stack.append(False)

    def _push_list(self, _: Any) -> None:
        self._stack.append([])

    def _push_dict(self, _: Any) -> None:
        self._stack.append({})

    def _push_tuple(self, _: Any) -> None:
        self._stack.append(())

    def _mark(self, _: Any) -> None:
        self._marked.append(self._stack)
        self._stack = []

    def _since_mark(self) -> list[Any]:
        items, self._stack = self._stack, self._marked.pop()
        return items

    def _pop(self, _: Any) -> None:
        if self._stack:
            self._stack.pop()
        else:
            self._since_mark()

    def _pop_mark(self, _: Any) -> None:
        self._since_mark()

    def _duplicate(self, _: Any) -> None:
        self._stack.append(self._stack[-1])

    def _get(self, index: int) -> None:
        if index not in self._memo:
            raise MalformedError(f"its pickle refers to object {index}, which it does not have")
        self._stack.append(self._memo[index])

    def _put(self, index: int) -> None:
        self._memo[index] = self._stack[-1]

    def _memoize(self, _: Any) -> None:
        self._memo[len(self._memo)] = self._stack[-1]

    def _tuple_of_1(self, _: Any) -> None:
        self._stack.append((self._stack.pop(),))

    def _tuple_of_2(self, _: Any) -> None:
        last = self._stack.pop()
        self._stack.append((self._stack.pop(), last))

    def _tuple_of_3(self, _: Any) -> None:
        last, middle = self._stack.pop(), self._stack.pop()
        self._stack.append((self._stack.pop(), middle, last))

    def _tuple(self, _: Any) -> None:
        items = self._since_mark()
        self._stack.append(tuple(items))

    def _list(self, _: Any) -> None:
        items = self._since_mark()
        self._stack.append(items)

    def _dict(self, _: Any) -> None:
        items = self._since_mark()
        self._stack.append({})
        self._set(items)

    def _append(self, _: Any) -> None:
        self._extend([self._stack.pop()])

    def _appends(self, _: Any) -> None:
        self._extend(self._since_mark())

    def _extend(self, items: list[Any]) -> None:
        if isinstance(target := self._stack[-1], list):
            target.extend(items)
        elif not isinstance(target, Call):
            raise MalformedError(f"its pickle appends to a {type(target).__name__}")

    def _set_item(self, _: Any) -> None:
        value = self._stack.pop()
        self._set([self._stack.pop(), value])

    def _set_items(self, _: Any) -> None:
        self._set(self._since_mark())

    def _set(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if isinstance(target, dict):
            pairs = zip(items[::2], items[1::2], strict=True)
            target.update((key if type(key) is str else object(), value) for key, value in pairs)
        elif not isinstance(target, Call):
            raise MalformedError(f"its pickle sets items of a {type(target).__name__}")

    def _global(self, argument: str) -> None:
        self._named(*argument.split(" ", 1))

    def _stack_global(self, _: Any) -> None:
        name, module = self._stack.pop(), self._stack.pop()
        if type(name) is not str or type(module) is not str:
            raise MalformedError("its pickle names a global by what is no string")
        self._named(module, name)

    def _named(self, module: str, name: str) -> None:
        named = Global(_RENAMED.get(module, module), name)
        if len(self.globals) >= MAX_GLOBALS and named not in self.globals:
            raise MalformedError(f"its pickle names more than {MAX_GLOBALS:,} classes")
        self._stack.append(self.globals.setdefault(named, named))

    def _instance(self, argument: str) -> None:
        arguments = tuple(self._since_mark())
        self._global(argument)
        self._stack.append(self._called(self._stack.pop(), arguments))

    def _object(self, _: Any) -> None:
        function, *arguments = self._since_mark()
        self._stack.append(self._called(function, tuple(arguments)))

    def _reduce(self, _: Any) -> None:
        arguments = self._stack.pop()
        self._stack.append(self._called(self._stack.pop(), arguments))

    def _new_with_keywords(self, _: Any) -> None:
        self._stack.pop()
        self._reduce(_)

    def _called(self, function: Any, arguments: Any) -> Any:
        if not isinstance(arguments, tuple):
            raise MalformedError("its pickle calls something with what is no tuple")
        length = max(len(arguments), *(len(a) for a in arguments if isinstance(a, list | tuple)), 0)
        if length > _SHORT:
            self.spend(length * len(arguments))
        if isinstance(function, Global):
            return self._call(function, arguments)
        return Call(function, arguments)

    def _build(self, _: Any) -> None:
        state = self._stack.pop()
        if isinstance(target := self._stack[-1], Call):
            target.state = state

    def _by_identity(self, _: Any) -> None:
        self._stack.append(self._persistent(self._stack.pop()))

    def _by_text_identity(self, identity: str) -> None:
        self._stack.append(self._persistent(identity))

    _literals = (
        "INT BININT BININT1 BININT2 LONG LONG1 LONG4 STRING BINSTRING SHORT_BINSTRING BINBYTES SHORT_BINBYTES "
        "BINBYTES8 BYTEARRAY8 UNICODE SHORT_BINUNICODE BINUNICODE BINUNICODE8 FLOAT BINFLOAT"
    )
    _operations: ClassVar[dict[str, Callable[[Machine, Any], None]]] = {
        **dict.fromkeys(_literals.split(), _push),
        **dict.fromkeys(("PROTO", "FRAME"), _ignore),
        **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), _get),
        **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), _put),
        **dict.fromkeys(("LIST", "FROZENSET"), _list),
        **dict.fromkeys(("EMPTY_LIST", "EMPTY_SET"), _push_list),
        **dict.fromkeys(("APPENDS", "ADDITEMS"), _appends),
        **dict.fromkeys(("REDUCE", "NEWOBJ"), _reduce),
        "TUPLE1": _tuple_of_1,
        "TUPLE2": _tuple_of_2,
        "TUPLE3": _tuple_of_3,
        "TUPLE": _tuple,
        "EMPTY_TUPLE": _push_tuple,
        "NONE": _push_none,
        "NEWTRUE": _push_true,
        "NEWFALSE": _push_false,
        "EMPTY_DICT": _push_dict,
        "DICT": _dict,
        "MARK": _mark,
        "POP": _pop,
        "POP_MARK": _pop_mark,
        "DUP": _duplicate,
        "MEMOIZE": _memoize,
        "APPEND": _append,
        "SETITEM": _set_item,
        "SETITEMS": _set_items,
        "GLOBAL": _global,
        "STACK_GLOBAL": _stack_global,
        "INST": _instance,
        "OBJ": _object,
        "NEWOBJ_EX": _new_with_keywords,
        "BUILD": _build,
        "BINPERSID": _by_identity,
        "PERSID": _by_text_identity,
    }
