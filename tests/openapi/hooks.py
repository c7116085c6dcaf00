"""Hooks of schemathesis: what no schema can say of a valid request."""

import schemathesis


@schemathesis.hook
def filter_body(context, body):
    """The names of other parts, which the server skips, must be printable."""
    return not isinstance(body, dict) or all(name.isprintable() for name in body)


@schemathesis.hook
def before_call(context, case, kwargs):
    """`Repr-Digest` must be the digest of the file."""
    if case.meta.generation.mode == schemathesis.GenerationMode.POSITIVE:
        case.headers.pop("Repr-Digest", None)
