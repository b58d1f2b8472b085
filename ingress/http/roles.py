"""Who may do what: the roles of users and the scopes of API keys.

Each route declares its own. The matrix in the docs and a test are generated from the routes.
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

    READ = "read"  # everything that changes nothing
    MONEY = "money"  # transactions, holds, reversals
    ACCOUNTS = "accounts"  # opening, freezing, closing, limits
    USERS = "users"  # users and their roles


Roles = frozenset[UserRole]

# `roles` of a route that needs no authentication.
PUBLIC: Final[Roles | None] = None
SIGNED_IN: Final[Roles] = frozenset(UserRole)
USERS: Final[Roles] = frozenset({UserRole.USER, UserRole.OPERATOR})
OPERATORS: Final[Roles] = frozenset({UserRole.OPERATOR})
AUDITORS: Final[Roles] = frozenset({UserRole.AUDITOR})
# May read what belongs to others.
READERS: Final[Roles] = frozenset({UserRole.OPERATOR, UserRole.AUDITOR})
ADMINS: Final[Roles] = frozenset({UserRole.ADMIN})
