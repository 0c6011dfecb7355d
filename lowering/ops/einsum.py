"""Sums of products."""

from __future__ import annotations

from string import ascii_letters

from irshap.ir.core import Value
from irshap.ir.dims import same
from irshap.lowering.alike import lower_alike
from irshap.lowering.importer import Import, Unmodeled, importer
from irshap.ops import einsum, reduce
from irshap.ops.shape import reshape, transpose

__all__: list[str] = []

lower_alike("Einsum", einsum.Einsum)


@importer("Einsum")
def _read_einsum(n: Import) -> Value:
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
