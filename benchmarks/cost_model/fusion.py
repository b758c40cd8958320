"""Kernels out of operations: each its own, as without a compiler, or chains of them as one.

A chain is made of pointwise operations, casts, copies and reductions of one pass that are connected by what
one makes and another takes. As one kernel it reads what comes from outside, each piece once, and writes
what is used outside, also that which is kept for the backward pass. Not in one kernel are what a product or
an attention between them depends on and what depends on that. A sum over rows (a bias's gradient) is in the
kernel of what it sums, as torch's compiler does (mix_order_reduction), but what is made of it is not.
Nothing is computed twice.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from cost_model.recorder import Access, Operation

# Of a step without a compiler; with the product's compiled parts; with all of it compiled.
Scope = Literal["eager", "compiled parts", "all"]


@dataclass
class Kernel:
    """What is started at once, and what its operations are."""

    operations: list[Operation]
    num_bytes: int
    flops: int

    @property
    def name(self) -> str:
        of_own = [o.name for o in self.operations if o.kind == "own kernel"]
        return of_own[0] if of_own else self.operations[0].name if len(self.operations) == 1 else "(fused)"

    @property
    def phase(self) -> str:
        return self.operations[0].phase

    @property
    def is_attention(self) -> bool:
        return any(operation.is_attention for operation in self.operations)


@dataclass
class _Group:
    """A chain while it grows; `depth` counts the products before it."""

    depth: int
    fuses: bool
    region: int | None
    phase: str
    members: list[int] = field(default_factory=list)


def kernels(operations: Iterable[Operation], *, scope: Scope) -> list[Kernel]:
    """The kernels of recorded operations."""
    if scope == "eager":
        return [Kernel([one], one.num_bytes, one.flops) for one in operations]
    parts = list(operations)
    versions = _versioned(parts)
    constants = _constants(parts, versions)
    groups = _groups(parts, versions, constants, scope)
    readers: dict[tuple[int, int], set[int]] = {}
    for group, members in enumerate(groups):
        for member in members.members:
            for version, _ in versions[member][0]:
                readers.setdefault(version, set()).add(group)
    return [
        _kernel([(parts[i], *versions[i]) for i in group.members], number, readers, constants)
        for number, group in enumerate(groups)
    ]


_Version = tuple[int, int]
_Accesses = list[tuple[_Version, Access]]


def _versioned(parts: list[Operation]) -> list[tuple[_Accesses, _Accesses]]:
    """What each reads and writes, where writing to a value makes a new version of it."""
    version: dict[int, int] = {}
    found: list[tuple[_Accesses, _Accesses]] = []
    for part in parts:
        reads = [((access.value, version.get(access.value, 0)), access) for access in part.reads]
        for access in part.writes:
            version[access.value] = version.get(access.value, 0) + 1
        found.append((reads, [((access.value, version[access.value]), access) for access in part.writes]))
    return found


def _constants(parts: list[Operation], versions: list[tuple[_Accesses, _Accesses]]) -> set[_Version]:
    """Values that are written out of nothing and read only where they can be computed again."""
    made = {
        version
        for part, (_, writes) in zip(parts, versions, strict=True)
        if part.kind == "pointwise" and not part.reads
        for version, _ in writes
    }
    by_own_kernels = {
        version
        for part, (reads, _) in zip(parts, versions, strict=True)
        if part.kind == "own kernel"
        for version, _ in reads
    }
    read = {version for reads, _ in versions for version, _ in reads}
    return (made & read) - by_own_kernels


def _groups(
    parts: list[Operation],
    versions: list[tuple[_Accesses, _Accesses]],
    constants: set[_Version],
    scope: Scope,
) -> list[_Group]:
    groups: dict[int, _Group] = {}  # by one of its members
    group_of: dict[int, int] = {}
    made_by: dict[_Version, int] = {}
    depth_of: dict[_Version, int] = {}
    for number, (part, (reads, writes)) in enumerate(zip(parts, versions, strict=True)):
        if writes and all(version in constants for version, _ in writes):
            continue
        depth = max((depth_of.get(version, 0) for version, _ in reads), default=0)
        is_own = part.kind == "own kernel"
        region = part.region if scope == "compiled parts" else None
        fuses = not is_own and (scope == "all" or region is not None)
        groups[number] = _Group(depth, fuses, region, part.phase, [number])
        group_of[number] = number
        if fuses:
            for version, _ in reads:
                if version in made_by:
                    _join(groups, group_of, group_of[made_by[version]], group_of[number])
        for version, _ in writes:
            made_by[version] = number
            depth_of[version] = depth + (part.kind in {"own kernel", "column reduction"})
    return list(groups.values())


def _join(groups: dict[int, _Group], group_of: dict[int, int], first: int, second: int) -> None:
    one, other = groups[first], groups[second]
    alike = (one.depth, one.fuses, one.region, one.phase) == (
        other.depth, other.fuses, other.region, other.phase
    )  # fmt: skip
    if first == second or not alike:
        return
    for member in other.members:
        group_of[member] = first
    one.members += other.members
    del groups[second]


def _kernel(
    members: list[tuple[Operation, _Accesses, _Accesses]],
    number: int,
    readers: dict[_Version, set[int]],
    constants: set[_Version],
) -> Kernel:
    inside = {version for _, _, writes in members for version, _ in writes}
    pieces: dict[_Version, set[Access]] = {}
    for _, reads, _ in members:
        for version, access in reads:
            if version not in inside | constants:
                pieces.setdefault(version, set()).add(access)
    num_bytes = sum(
        min(sum(access.num_bytes for access in of_value), max(access.whole_bytes for access in of_value))
        for of_value in pieces.values()
    )
    for _, _, writes in members:
        for version, access in writes:
            if readers.get(version, set()) != {number}:
                num_bytes += access.num_bytes
    parts = [part for part, _, _ in members]
    return Kernel(parts, num_bytes, sum(part.flops for part in parts))
