"""The clients' keys: who asks, and for which models; and the command that makes one.

Only hashes are kept, and no message holds any part of a key.
"""

import argparse
import getpass
import hashlib
import hmac
import re
import secrets
import string
import sys
from collections.abc import Iterator, Mapping, Sequence

from msgspec import Struct

from proxy.core.patterns import pattern
from proxy.errors import RequestError
from proxy.wire.invalid import short

_INDEX = 8
"""Bytes of a digest; two of 10,000 keys share them in one of 10 ** 11 files."""
_NOBODY = bytes(32)
"""The digest of no key that anybody knows."""
_BETWEEN = re.compile(r"[\s,;\"]+")
"""What stands between the parts of a header's value."""
_VISIBLE = set(string.ascii_letters + string.digits + string.punctuation)
_LONG_ENOUGH = 32
"""Signs. What is shorter was perhaps thought up, and a fast hash such as SHA-256 does not hide that."""


class Grant(Struct, frozen=True):
    """What the holder of one key may do. See config.Key.

    hash: "sha256:" and 64 hex digits. models: exact names, or patterns with * and ?. Limits: None for no limit.
    """

    name: str
    hash: str
    models: tuple[str, ...] = ("*",)
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    streams: int | None = None


class Keyring:
    """The keys that are known here. admin_hashes: of the keys for /admin, which open nothing else."""

    def __init__(self, grants: Sequence[Grant] = (), admin_hashes: Sequence[str] = ()) -> None:
        digests = [(bytes.fromhex(grant.hash.removeprefix("sha256:")), grant) for grant in grants]
        self._grants: dict[bytes, tuple[bytes, Grant | None]] = {each[0][:_INDEX]: each for each in digests}
        self._admins = [bytes.fromhex(each.removeprefix("sha256:")) for each in admin_hashes]
        self._models = {models: pattern(models) for models in {grant.models for grant in grants}}

    def find(self, headers: Mapping[str, str]) -> Grant | None:
        """Whose key is in the headers; None when no keys are configured, and everybody may ask.

        headers: names in any case. Of several keys one that is known is enough. Raises RequestError, 401.
        """
        if not self._grants:
            return None
        for digest in _digests(headers):
            if grant := self._grant(digest):
                return grant
        raise _unknown()

    def holds(self, value: str) -> bool:
        """Whether this value of a header holds a key that is known here, a client's or an admin's."""
        if not (self._grants or self._admins):
            return False
        digests = map(_digest, _candidates(value))
        return any(self._grant(digest) or self._is_admin(digest) for digest in digests)

    def without_keys(self, headers: Mapping[str, str]) -> Mapping[str, str]:
        """A view of the headers in which those are missing that hold a key known here: keys are nobody else's business.

        headers: names in any case. It looks only at those that are asked for: to hash all takes as long as a request.
        """
        return _WithoutKeys(self, headers) if self._grants or self._admins else headers

    def admin(self, headers: Mapping[str, str]) -> None:
        """Raises RequestError unless an admin key is in the headers.

        401 without a key that is known, 403 for a client's, 404 when no admin keys are configured.
        """
        if not self._admins:
            raise RequestError("Not found: no `admin_keys` are configured.", status=404, code="unknown_url")
        digests = _digests(headers)
        if any(map(self._is_admin, digests)):
            return
        if any(map(self._grant, digests)):
            raise RequestError("This needs an admin key.", status=403, code="insufficient_permissions")
        raise _unknown()

    def takes(self, grant: Grant, model: str) -> bool:
        """Whether this key may ask for this model. model: as clients name it."""
        return self._models[grant.models].match(model) is not None

    def allows(self, grant: Grant, model: str) -> None:
        """Raises RequestError, 403, for a model that this key may not ask for. model: as the client names it."""
        if not self.takes(grant, model):
            allowed = ", ".join(map(repr, grant.models)) or "none"
            raise RequestError(
                f"This key may not ask for the model {short(model)!r}. Allowed are: {allowed}.",
                status=403,
                code="model_not_found",
                param="model",
            )

    def _is_admin(self, digest: bytes) -> bool:
        return any(hmac.compare_digest(admin, digest) for admin in self._admins)

    def _grant(self, digest: bytes) -> Grant | None:
        """In the same time whatever the digest, and with 10,000 keys as with one.

        The beginning of a digest leads to the only one that may be it, through a dict whose hash has a seed of its own
        in each process; then the whole is compared. So the time says nothing about how much of a digest was right, let
        alone of a key.
        """
        known, grant = self._grants.get(digest[:_INDEX], (_NOBODY, None))
        return grant if hmac.compare_digest(known, digest) else None


class _WithoutKeys(Mapping[str, str]):
    def __init__(self, keyring: Keyring, headers: Mapping[str, str]) -> None:
        self._keyring = keyring
        self._headers = headers

    def __getitem__(self, name: str) -> str:
        value = self._headers[name]
        if self._keyring.holds(value):
            raise KeyError(name)
        return value

    def __iter__(self) -> Iterator[str]:
        return (name for name in self._headers if name in self)

    def __len__(self) -> int:
        return sum(1 for _ in self)


def make_key() -> tuple[str, str]:
    """A new key, and its hash as the YAML takes it."""
    key = "sk-" + secrets.token_urlsafe(32)
    return key, hash_of(key)


def hash_of(key: str) -> str:
    return "sha256:" + _digest(key).hex()


def describe(hash: str) -> str:
    """What to write into the YAML for a key."""
    return (
        "In the YAML, for a client:\n\n"
        "keys:\n"
        "  - name: somebody  # for logs and metrics\n"
        f"    hash: {hash}\n\n"
        "or for /admin:\n\n"
        "admin_keys:\n"
        f"  - {hash}\n"
    )


def main(argv: Sequence[str]) -> int:
    """The command `key`: makes a key, or takes one from standard input. Returns the exit status: 2 for a bad key."""
    parser = argparse.ArgumentParser(
        prog="responses-proxy key", description="Makes a key for a client, and says what to write into the YAML for it."
    )
    parser.add_argument("--hash", action="store_true", help="take the key from standard input instead of making one")
    if not parser.parse_args(argv).hash:
        key, hashed = make_key()
        sys.stdout.write(f"The key, which is shown only here:\n\n{key}\n\n{describe(hashed)}")
        return 0
    typed = sys.stdin.isatty()
    key = getpass.getpass("Key: ") if typed else sys.stdin.buffer.readline().decode("ascii", "replace").strip()
    if not key or not _VISIBLE.issuperset(key):
        sys.stderr.write("expected a key on standard input, one line of visible ASCII characters without spaces\n")
        return 2
    if len(key) < _LONG_ENOUGH:
        sys.stderr.write(f"a key of less than {_LONG_ENOUGH} characters may be guessed by who sees its hash\n")
    sys.stdout.write(describe(hash_of(key)))
    return 0


def _digests(headers: Mapping[str, str]) -> list[bytes]:
    """Of every key in the headers. Raises RequestError when there is none."""
    scheme, _, credentials = headers.get("Authorization", "").partition(" ")
    bearer = credentials if scheme.lower() == "bearer" else ""
    given = (bearer, headers.get("x-api-key", ""), headers.get("api-key", ""))
    digests = [_digest(key) for each in given if (key := each.strip())]
    if not digests:
        message = "No API key was sent. Send it in a header, as `Authorization: Bearer YOUR_KEY`."
        raise RequestError(message, status=401)
    return digests


def _candidates(value: str) -> set[str]:
    """All that may be a key in this value of a header: bare, behind a scheme, or as the value of a cookie."""
    parts = [*value.split(), *_BETWEEN.split(value)]
    return {value.strip(), *parts, *(part.partition("=")[2] for part in parts)} - {""}


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()


def _unknown() -> RequestError:
    return RequestError("The API key that was sent is not known here.", status=401, code="invalid_api_key")
