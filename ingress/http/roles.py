"""Who may do what: the roles of people and the scopes of API keys.

It is told by each route, in one place; the matrix in the docs and a test are made from it.
"""

from enum import StrEnum
from typing import Final


class UserRole(StrEnum):
    USER = "user"
    OPERATOR = "operator"
    AUDITOR = "auditor"
    ADMIN = "admin"


class Scope(StrEnum):
    """What an API key may be used for, within its owner's role."""

    READ = "read"  # whatever changes nothing
    MONEY = "money"  # transactions, holds, reversals
    ACCOUNTS = "accounts"  # opening, freezing, closing, limits
    USERS = "users"  # people, their roles


Roles = frozenset[UserRole]

# `roles` of a route that asks nobody who they are.
PUBLIC: Final[Roles | None] = None
SIGNED_IN: Final[Roles] = frozenset(UserRole)
USERS: Final[Roles] = frozenset({UserRole.USER, UserRole.OPERATOR})
OPERATORS: Final[Roles] = frozenset({UserRole.OPERATOR})
AUDITORS: Final[Roles] = frozenset({UserRole.AUDITOR})
# May read what is not their own.
READERS: Final[Roles] = frozenset({UserRole.OPERATOR, UserRole.AUDITOR})
ADMINS: Final[Roles] = frozenset({UserRole.ADMIN})
