"""espeak-ng, a speech synthesiser, through ctypes: the wheel `espeakng-loader` carries it, no system package is needed.

The functions and constants are those of espeak-ng's `speak_lib.h`.
"""

import ctypes
import os
import shutil
import tempfile
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from fastloaa.data.clips import DataError
from fastloaa.extras import optional

_OUTPUT_SYNCHRONOUS, _DONT_EXIT = 2, 0x8000
_RATE, _VOLUME, _PITCH = 1, 2, 3
_POS_CHARACTER, _CHARS_UTF8 = 1, 1
_HEADROOM_VOLUME = 50  # at the default of 100 some voices clip

_SynthCallback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


class Espeak:
    """A synthesiser in its initial state: the same calls in the same order give the same samples.

    Attributes:
        sample_rate: of the speech, in Hz.

    Raises:
        MissingPackageError: espeakng_loader is not installed.
        DataError: the library does not start.
    """

    def __init__(self) -> None:
        espeakng_loader = optional("espeakng_loader")
        self._data = _short(Path(espeakng_loader.get_data_path()))
        self._library = _private_copy(Path(espeakng_loader.get_library_path()))
        self._library.espeak_Synth.argtypes = [
            ctypes.c_char_p,  # text
            ctypes.c_size_t,  # its size with the final 0
            ctypes.c_uint,  # position to start from
            ctypes.c_int,  # unit of the position
            ctypes.c_uint,  # position to end at, 0 = the end
            ctypes.c_uint,  # flags
            ctypes.c_void_p,  # receives an identifier
            ctypes.c_void_p,  # user data
        ]
        self._chunks: list[NDArray[np.int16]] = []
        self.sample_rate: int = self._library.espeak_Initialize(
            _OUTPUT_SYNCHRONOUS, 0, str(self._data).encode(), _DONT_EXIT
        )
        if self.sample_rate <= 0:
            raise DataError(f"espeak-ng does not start with its data in {self._data}; reinstall espeakng-loader")
        self._library.espeak_ng_SetRandSeed(ctypes.c_long(1))  # it starts with the time of day
        self._callback = _SynthCallback(self._receive)  # kept: the library holds only a bare pointer
        self._library.espeak_SetSynthCallback(self._callback)

    def say(self, text: str, accent: str, variant: str, pitch: int, rate: int) -> NDArray[np.int16]:
        """Speech of `text`, int16 `[samples]`, with the silence that espeak puts around it.

        Args:
            accent: language name, such as "en-us".
            variant: voice variant, such as "f3": a file in espeak's `voices/!v`.
            pitch: 0 to 100, 50 is the variant's own.
            rate: words per minute.

        Raises:
            DataError: no such accent or variant, or espeak reports an error.
        """
        if not (self._data / "voices" / "!v" / variant).is_file():  # espeak would use the plain voice and not say so
            raise DataError(f"espeak-ng has no voice variant {variant!r}; expected a file in {self._data}/voices/!v")
        self._check(self._library.espeak_SetVoiceByName(f"{accent}+{variant}".encode()), f"voice {accent}+{variant}")
        for parameter, value in ((_RATE, rate), (_VOLUME, _HEADROOM_VOLUME), (_PITCH, pitch)):
            self._check(self._library.espeak_SetParameter(parameter, value, 0), f"setting {parameter} to {value}")
        self._chunks.clear()
        encoded = text.encode()
        self._check(
            self._library.espeak_Synth(encoded, len(encoded) + 1, 0, _POS_CHARACTER, 0, _CHARS_UTF8, None, None),
            f"text {text!r}",
        )
        self._check(self._library.espeak_Synchronize(), f"text {text!r}")
        return np.concatenate(self._chunks) if self._chunks else np.zeros(0, np.int16)

    def _receive(self, samples: "ctypes._Pointer[ctypes.c_short]", count: int, _events: int) -> int:
        """espeak's callback: keep a chunk of speech; 0 asks for more."""
        if count > 0:
            self._chunks.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0

    @staticmethod
    def _check(status: int, what: str) -> None:
        if status != 0:
            raise DataError(f"espeak-ng refuses {what} with status {status}; see espeak_ERROR in speak_lib.h")


def _private_copy(library: Path) -> ctypes.CDLL:
    """The library loaded from a copy of its file, which gives it globals of its own.

    espeak keeps its state in globals (the phase of a voice's flutter, random numbers), and starting it again does not
    reset them: speech would depend on what was said before.
    """
    handle, copy = tempfile.mkstemp(dir=_temporary_folder().name, suffix=library.name)
    os.close(handle)
    shutil.copyfile(library, copy)
    try:
        return ctypes.CDLL(copy)
    except OSError as error:
        raise DataError(
            f"espeak-ng cannot be loaded ({error}); set TMPDIR to a folder that may hold programs"
        ) from error


def _short(path: Path) -> Path:
    """The same folder by a name of at most 159 bytes, where espeak cuts it off."""
    if len(os.fsencode(path)) < 160:
        return path
    link = Path(tempfile.mkdtemp(dir=_temporary_folder().name), path.name)
    link.symlink_to(path, target_is_directory=True)
    return link


@cache
def _temporary_folder() -> TemporaryDirectory[str]:
    # Kept until the process ends: a loader knows a library by its inode, and that of a deleted file may come back.
    return TemporaryDirectory(prefix="espeak-ng-", ignore_cleanup_errors=True)
