"""Hypothesis strategies for arbitrary records: any value that a field's type admits, and fields nobody knows yet."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import strategies as st
from msgspec import inspect

from llmlab.trace import Header, Incident, Request, Step
from llmlab.trace.lines import KINDS

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)  # a half surrogate is no text
NUMBER = st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | NUMBER | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=5,
)


def extra_fields(kind: type[msgspec.Struct]) -> st.SearchStrategy[dict[str, Any]]:
    """Fields of a newer version: any name but the known ones. "extra" itself is one of them."""
    taken = set(kind.__struct_fields__) - {"extra"} | {"kind"} | (set(KINDS) if kind in KINDS.values() else set())
    name = st.sampled_from(["extra", "joules", "größe", ""]) | TEXT
    return st.just({}) | st.dictionaries(name.filter(lambda key: key not in taken), JSON, max_size=2)


def values(kind: inspect.Type) -> st.SearchStrategy[Any]:
    match kind:
        case inspect.StructType():
            return records(kind.cls)
        case inspect.UnionType():
            return st.one_of(*map(values, kind.types))
        case inspect.NoneType():
            return st.none()
        case inspect.BoolType():
            return st.booleans()
        case inspect.IntType():
            return st.integers(kind.ge, kind.le)
        case inspect.FloatType():
            return NUMBER
        case inspect.StrType():
            return TEXT
        case inspect.LiteralType():
            return st.sampled_from(kind.values)
        case inspect.VarTupleType():
            return st.lists(values(kind.item_type), max_size=3).map(tuple)
        case inspect.TupleType():
            return st.tuples(*map(values, kind.item_types))
        case inspect.DictType():
            return st.dictionaries(values(kind.key_type), values(kind.value_type), max_size=3)
        case inspect.AnyType():
            return JSON
    raise NotImplementedError(kind)


def records(kind: type[msgspec.Struct]) -> st.SearchStrategy[Any]:
    fields = {field.name: values(field.type) for field in inspect.type_info(kind).fields}  # type: ignore[union-attr]
    fields["extra"] = extra_fields(kind)
    if kind is Header:
        fields["schema"] = st.sampled_from(["llmlab.trace/1", "llmlab.trace/1.7"])
    return st.builds(kind, **fields)


HEADERS = records(Header)
RECORDS = st.one_of(records(Request), records(Step), records(Incident))
