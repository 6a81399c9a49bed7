"""Faults put into copies of the project's files, to see that a check notices them."""

from typing import NamedTuple


class Fault(NamedTuple):
    """One change to one file; the rule that has to be broken by it, and nothing else."""

    rule: str
    file: str
    old: str
    new: str

    def __str__(self):
        return f"{self.rule}: {self.new.strip() or 'no ' + self.old.strip()}"

    def put_into(self, files):
        """The files, {name: text}, with the fault in them."""
        text = files[self.file]
        assert text.count(self.old) >= 1, f"{self.file} has no {self.old!r} any more"
        return {**files, self.file: text.replace(self.old, self.new, 1)}


def broken(rules, fault, files, first=None, slow=frozenset()):
    """Which of the rules, {name: function of the files that returns what is wrong}, a fault breaks.

    The others aren't asked if it breaks the rule `first`, as they could not read the files, and of the slow ones only
    that which the fault is for.
    """
    files = fault.put_into(files)
    if first and list(rules[first](files)):
        return {first}
    return {name for name, rule in rules.items() if (name not in slow or name == fault.rule) and list(rule(files))}
