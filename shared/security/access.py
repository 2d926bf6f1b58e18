"""Promise 10: what a principal may see and do, decided in one place from role and scope."""

from shared.directory.directory import Directory, UnknownAgency
from shared.security.tokens import Principal, Role


def scope_of(principal: Principal, directory: Directory) -> frozenset[str] | None:
    """The agencies that a principal speaks for: its own and what that succeeds, with subtree also those below.

    A leader reads the subtree with any token. None: the whole site.
    """
    if principal.agency is None:
        return None
    try:
        return directory.scope(principal.agency, principal.subtree or principal.role is Role.LEADER)
    except UnknownAgency:
        return frozenset()  # a token outlives what the directory says; it then speaks for nobody


def in_scope(principal: Principal, directory: Directory, *agencies: str | None) -> bool:
    """Whether one of these agencies is the principal's."""
    scope = scope_of(principal, directory)
    return scope is None or any(agency in scope for agency in agencies if agency is not None)


def sees_personal_data(principal: Principal) -> bool:
    """Desk and admin see the applicant; auditor and operator never do; others need a transfer that is open to them."""
    return principal.role in (Role.DESK, Role.ADMIN)
