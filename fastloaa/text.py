"""Names as people can read them: file names may hold any bytes, screens and text files may not."""

import re
from os import PathLike

_SURROGATES = re.compile("[\ud800-\udfff]")
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def encodable(text: str) -> str:
    r"""`text` that any UTF-8 stream takes: a byte of a file name that is not UTF-8 becomes an escape such as `\xe9`."""

    def escape(match: re.Match[str]) -> str:
        code = ord(match[0])  # Python hides the byte b of a file name in the code 0xDC00 + b
        return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else f"\\u{code:04x}"

    return _SURROGATES.sub(escape, text)


def printable(name: str | PathLike[str]) -> str:
    r"""A name on one line of a screen: like `encodable`, and control characters become escapes such as `\n`."""
    return _CONTROLS.sub(lambda match: match[0].encode("unicode_escape").decode(), encodable(str(name)))
