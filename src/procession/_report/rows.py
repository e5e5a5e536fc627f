"""Which lives have a line in the picture: all, or where they are too many, folded by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Hashable, Sequence

from procession.lifeline import MAIN, Lifespan, Timeline

FOLD_ABOVE = 40  # children; of more, those that ended well are folded by name
DEEPEST = 24  # columns of tree in front of a name


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """One line of the picture: a life, or several folded into one.

    Attributes:
        tree: Trunk and branch in front of the name.
        label: Its name, with how many they are where they are several.
        spans: The lives; the first one stands for what they have in common.
        others: Whether they have different names.
    """

    tree: str
    label: str
    spans: tuple[Lifespan, ...]

    @property
    def span(self) -> Lifespan:
        return self.spans[0]

    @property
    def ended_well(self) -> bool:
        return all(span.ended_well for span in self.spans)


_Line = tuple[Lifespan, tuple[Lifespan, ...]]
"""A life with a line of its own, and all that the line stands for."""


def rows_of(timeline: Timeline, trunk: str, branch: str, last: str, times: str) -> list[Row]:
    """Main, then its tree.

    Args:
        timeline: The lives.
        trunk: What stands under a life that has younger siblings.
        branch: What stands in front of a child's name.
        last: And of the last child's.
        times: The sign between a name and a number.
    """
    children = timeline.children
    groups: list[_Line] = [(span, (span,)) for span in children]
    if len(children) > FOLD_ABOVE:
        tree = _Tree(children)
        for fold in _FOLDS:
            groups = tree.folded(fold)
            if len(groups) <= FOLD_ABOVE:
                break
    shown = {span.id for span, _ in groups}
    parents = {span.id: span.parent if span.parent in shown else MAIN for span, _ in groups}
    youngest = {parent: child for child, parent in parents.items()}
    trunks = {MAIN: ""}
    rows = [Row("", timeline.main.label, (timeline.main,))]
    for span, members in groups:
        parent = parents[span.id]
        is_last = youngest[parent] == span.id
        above = trunks.get(parent, "")
        trunks[span.id] = (above + (" " * len(trunk) if is_last else trunk))[-DEEPEST:]
        label = span.label
        if len(members) > 1:
            stems = {stem(member.label) for member in members if member.parent == span.parent}
            label = f"{stems.pop() if len(stems) == 1 else 'others'} {times}{len(members)}"
        rows.append(Row((above + (last if is_last else branch))[-DEEPEST:], label, members))
    return rows


def stem(label: str) -> str:
    """A name without its number."""
    return label.rstrip("0123456789:-_. #") or label


_Key = Callable[["_Tree", Lifespan], Hashable]
"""Under what a life, and all below it, is folded with its siblings; ``None``: not at all."""


def _by_name(tree: _Tree, span: Lifespan) -> Hashable:
    return stem(span.label) if tree.well[span.id] and tree.size[span.id] == 1 else None


def _families_by_name(tree: _Tree, span: Lifespan) -> Hashable:
    return stem(span.label) if tree.well[span.id] else None


def _all_that_ended_well(tree: _Tree, span: Lifespan) -> Hashable:
    return "" if tree.well[span.id] else None


def _bad_ones_too(tree: _Tree, span: Lifespan) -> Hashable:
    if tree.well[span.id]:
        return ""
    return (stem(span.label), span.how_it_ended) if tree.size[span.id] == 1 else None


def _bad_ones_by_ending(tree: _Tree, span: Lifespan) -> Hashable:
    if tree.well[span.id]:
        return ""
    return (span.how_it_ended,) if tree.size[span.id] == 1 else None


_FOLDS: Sequence[_Key] = (
    _by_name,
    _families_by_name,
    _all_that_ended_well,
    _bad_ones_too,
    _bad_ones_by_ending,
)
"""From the mildest on: each is tried where the one before still leaves too many lines."""


class _Tree:
    """What is below each life. In a depth-first order it is what follows."""

    def __init__(self, spans: Sequence[Lifespan]) -> None:
        self.spans = spans
        self.size: dict[int, int] = {}
        self.well: dict[int, bool] = {}
        for span in reversed(spans):
            size = self.size[span.id] = self.size.get(span.id, 0) + 1
            well = self.well[span.id] = self.well.get(span.id, True) and span.ended_well
            self.size[span.parent] = self.size.get(span.parent, 0) + size
            self.well[span.parent] = self.well.get(span.parent, True) and well

    def folded(self, key: _Key) -> list[_Line]:
        """Lives with a line of their own, each with those that it stands for."""
        groups: dict[Hashable, list[int]] = {}
        keys: dict[int, Hashable] = {}
        at = 0
        while at < len(self.spans):
            span = self.spans[at]
            found = key(self, span)
            if found is None:
                at += 1
                continue
            keys[at] = (span.parent, found)
            groups.setdefault(keys[at], []).append(at)
            at += self.size[span.id]
        counts = {
            group: sum(self.size[self.spans[at].id] for at in members)
            for group, members in groups.items()
        }
        lines: list[_Line] = []
        at = 0
        while at < len(self.spans):
            span, group = self.spans[at], keys.get(at)
            if group is None or counts[group] < 3:
                lines.append((span, (span,)))
                at += 1
                continue
            members = groups[group]
            if members[0] == at:
                lines.append((span, tuple(self._below(members))))
            at += self.size[span.id]
        return lines

    def _below(self, members: Sequence[int]) -> list[Lifespan]:
        return [
            span for at in members for span in self.spans[at : at + self.size[self.spans[at].id]]
        ]
