"""Who may do what in which room: rules in a file, on the claims of whoever asks.

The rules are `[[rule]]` tables of `conf/room_permissions.toml`, where every key is described. One
`deny` that fits refuses; where none fits, one `allow` that fits allows; no rule means no. This
plugin never abstains, so order is of no matter, neither of the rules nor of the plugins.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated
from weakref import WeakKeyDictionary

import msgspec

from plugins.permission_rules import ACTIONS, Rule, read_rules
from seatws.plugins import Action, Identity, Plugin, Verdict
from seatws.rules import text

REMEMBERED = 128
"""Verdicts kept for one identity: ten rooms, all actions, and a margin. About 30 KiB when full."""

ROOMS_REMEMBERED = 4096
"""Actions in rooms of which it is known what the rules say. About 1 MiB when full."""

_FILE = text(r"[^\0]+", "the path of a file", '"room_permissions.toml" is one beside plugins.toml')
_NO_RULE = Verdict(False, "no rule allows it")


class RoomPermissions(Plugin):
    """Asks the rules of a file."""

    class Settings(msgspec.Struct, frozen=True, kw_only=True):
        """The keys of the plugin's table in conf/plugins.toml."""

        file: Annotated[str, _FILE] = "room_permissions.toml"
        """Where the rules are."""

    settings: Settings

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._adopt(read_rules(Path(settings.file)))

    def _adopt(self, rules: tuple[Rule, ...]) -> None:
        self._rules = rules
        self._about: dict[tuple[Action, str | None], Verdict | list[Rule]] = {}
        """What is said of an action in a room: to everyone, or by which rules."""
        self._verdicts: WeakKeyDictionary[Identity, dict[tuple[Action, str | None], Verdict]] = (
            WeakKeyDictionary()
        )

    def reload(self, settings: Settings) -> None:
        """Read the rules anew; the old ones go on if the new ones are bad."""
        rules = read_rules(Path(settings.file))
        super().reload(settings)
        self._adopt(rules)

    def may(
        self, identity: Identity, action: Action, room_id: str | None, seat_ids: Sequence[str]
    ) -> Verdict:
        """Ask the rules, or remember what they said: an identity's claims never change."""
        key = action, room_id
        about = self._about.get(key)
        if about is None:
            about = self._find_about(action, room_id)
        if isinstance(about, Verdict):
            return about
        verdicts = self._verdicts.get(identity)
        if verdicts is None:
            verdicts = self._verdicts[identity] = {}
        verdict = verdicts.get(key)
        if verdict is None:
            if len(verdicts) >= REMEMBERED:
                verdicts.clear()
            claims = identity.claims
            verdict = _decide([rule for rule in about if not rule.misfit(claims, room_id)])
            verdicts[key] = verdict
        return verdict

    def _find_about(self, action: Action, room_id: str | None) -> Verdict | list[Rule]:
        rules = [rule for rule in self._rules if not rule.elsewhere(action, room_id)]
        about = rules if any(rule.asks_claims for rule in rules) else _decide(rules)
        if len(self._about) >= ROOMS_REMEMBERED:
            self._about.clear()
        self._about[action, room_id] = about
        return about

    def weigh(
        self, identity: Identity, action: Action, room_id: str | None
    ) -> tuple[Verdict, list[tuple[Rule, str]]]:
        """Ask every rule.

        Returns:
            The verdict, and each rule with the reason why it doesn't fit, empty if it does.
        """
        claims = identity.claims
        asked = [
            (rule, rule.elsewhere(action, room_id) or rule.misfit(claims, room_id))
            for rule in self._rules
        ]
        return _decide([rule for rule, misfit in asked if not misfit]), asked

    def explain(self, identity: Identity, action: Action | None, room_id: str) -> list[str]:
        """What each rule says of an action in a room, or of all actions: a line a rule.

        The lines have words of the rule file in them, and nothing of the claims.
        """
        said: dict[Rule, dict[str, str]] = {rule: {} for rule in self._rules}
        for each in ACTIONS if action is None else (action,):
            _, asked = self.weigh(identity, each, None if each == "stats" else room_id)
            for rule, misfit in asked:
                said[rule][each] = misfit
        return [f'rule "{rule.name}": {_summary(rule, misfits)}' for rule, misfits in said.items()]


def _decide(fitting: Sequence[Rule]) -> Verdict:
    denying = (rule for rule in fitting if not rule.allows)
    decisive = next(denying, fitting[0] if fitting else None)
    return _NO_RULE if decisive is None else decisive.verdict


def _summary(rule: Rule, misfits: Mapping[str, str]) -> str:
    fits = [action for action, misfit in misfits.items() if not misfit]
    if fits:
        return f"{'allows' if rule.allows else 'denies'} {', '.join(fits)}"
    # Why it fits none of its own actions says more than that the others are not its own.
    whys = [misfit for misfit in misfits.values() if misfit != rule.NOT_ITS_ACTION]
    return f"does not fit ({whys[0] if whys else rule.NOT_ITS_ACTION})"
