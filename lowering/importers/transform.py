"""How copies, running sums, blocks of pixels and sums of products are lifted."""

from __future__ import annotations

from string import ascii_letters

from irshap.ir.core import Value
from irshap.ir.dims import as_dim, divide, same
from irshap.lowering.importer import Import, Unmodeled, importer
from irshap.ops import cumulative, einsum, reduce, tile
from irshap.ops.shape import reshape, transpose

__all__: list[str] = []


@importer("Tile")
def _tile(n: Import) -> Value:
    return n.one(tile.Tile(tuple(map(as_dim, n.dims(1)))), n.tensor())


@importer("CumSum")
def _cum_sum(n: Import) -> Value:
    (axis,) = n.ints(1)
    return n.one(
        cumulative.CumSum(n.axis(axis), bool(n.attribute("exclusive", 0)), bool(n.attribute("reverse", 0))),
        n.tensor(),
    )


@importer("Trilu")
def _trilu(n: Import) -> Value:
    (k,) = n.ints(1) if n.has(1) else [0]
    return n.one(cumulative.Trilu(bool(n.attribute("upper", 1)), k), n.tensor())


@importer("DepthToSpace")
def _depth_to_space(n: Import) -> Value:
    """[n, b, b, c, h, w] (or [n, c, b, b, h, w]) -> [n, c, h, b, w, b]."""
    x, b = n.tensor(), n.attributes["blocksize"]
    samples, channels, h, w = x.shape
    c = divide(channels, b * b)
    if c is None:
        raise Unmodeled(f"{channels} channels can't be shown to hold blocks of {b} by {b}")
    if n.attribute("mode", "DCR") == "DCR":
        blocks = transpose(reshape(x, (samples, b, b, c, h, w)), (0, 3, 4, 1, 5, 2))
    else:
        blocks = transpose(reshape(x, (samples, c, b, b, h, w)), (0, 1, 4, 2, 5, 3))
    return reshape(blocks, (samples, c, as_dim(h * b), as_dim(w * b)))


@importer("SpaceToDepth")
def _space_to_depth(n: Import) -> Value:
    """[n, c, h, b, w, b] -> [n, b, b, c, h, w]."""
    x, b = n.tensor(), n.attributes["blocksize"]
    samples, c, *plane = x.shape
    h, w = (divide(size, b) for size in plane)
    if h is None or w is None:
        raise Unmodeled(f"{plane} can't be shown to fall into blocks of {b} by {b}")
    blocks = transpose(reshape(x, (samples, c, h, b, w, b)), (0, 3, 5, 1, 2, 4))
    return reshape(blocks, (samples, as_dim(c * b * b), h, w))


@importer("Einsum")
def _einsum(n: Import) -> Value:
    """Two operands at a time, from the left; a single operand is summed and transposed."""
    values = n.given()
    terms, result = _terms(n.attribute("equation", ""), [v.rank for v in values])
    for term in terms:
        if len(set(term)) < len(term):
            raise Unmodeled(f"the diagonal {term!r} of an operand")
    values, terms = _without_ones(values, terms)
    (value, *rest), (term, *rest_terms) = values, terms
    while rest:
        other, other_term = rest.pop(0), rest_terms.pop(0)
        needed = set(result).union(*rest_terms)
        joined = "".join(i for i in dict.fromkeys(term + other_term) if i in needed) if rest else result
        if set(joined) <= set(term + other_term):
            value, term = n.one(einsum.Einsum(f"{term},{other_term}->{joined}"), value, other), joined
        else:
            # an index of the result that only had operands of one element
            made = "".join(i for i in joined if i in term + other_term)
            value, term = n.one(einsum.Einsum(f"{term},{other_term}->{made}"), value, other), made
    summed = tuple(i for i, index in enumerate(term) if index not in result)
    if summed:
        value = n.one(reduce.ReduceSum(summed, keepdims=False), value)
        term = "".join(i for i in term if i in result)
    value = transpose(value, [term.index(i) for i in result if i in term])
    sizes = iter(value.shape)
    return reshape(value, [next(sizes) if i in term else 1 for i in result])


def _terms(equation: str, ranks: list[int]) -> tuple[list[str], str]:
    """The indices of each operand and of the result, `...` as indices of its own."""
    left, arrow, right = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    if len(terms) != len(ranks):
        raise Unmodeled(f"{len(ranks)} operands for {equation!r}")
    unused = [i for i in ascii_letters if i not in equation]
    hidden = max(
        (rank - len(term) + 3 for term, rank in zip(terms, ranks, strict=True) if "..." in term), default=0
    )
    names = "".join(unused[:hidden])
    full = []
    for term, rank in zip(terms, ranks, strict=True):
        count = rank - len(term.replace("...", ""))
        if count < 0 or ("..." not in term and count):
            raise Unmodeled(f"{term!r} doesn't name {rank} axes")
        full.append(term.replace("...", names[len(names) - count :]))
    if arrow:
        return full, right.replace("...", names)
    once = sorted(i for i in set(left) - set(".,") if left.count(i) == 1)
    return full, names + "".join(once)


def _without_ones(values: list[Value], terms: list[str]) -> tuple[list[Value], list[str]]:
    """Operands without the axes of size 1 that stand against another's larger one."""
    large = {
        i
        for v, t in zip(values, terms, strict=True)
        for i, d in zip(t, v.shape, strict=True)
        if not same(d, 1)
    }
    kept_values, kept_terms = [], []
    for value, term in zip(values, terms, strict=True):
        kept = [(i, d) for i, d in zip(term, value.shape, strict=True) if not (same(d, 1) and i in large)]
        kept_values.append(reshape(value, [d for _, d in kept]))
        kept_terms.append("".join(i for i, _ in kept))
    return kept_values, kept_terms
