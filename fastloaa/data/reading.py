"""Reading clips, wherever their samples are."""

from torch import Tensor

from fastloaa.audio.decode import AudioError, load_audio, sound_seconds
from fastloaa.audio.resample import resample
from fastloaa.audio.stored import is_log_mel, load_log_mel, log_mel_shape
from fastloaa.audio.stored_front_end import LOG_MEL_RATE
from fastloaa.data import hdf5
from fastloaa.data.clips import Clip


def read_clip(clip: Clip, sample_rate: int = 16000) -> Tensor:
    """The clip's samples, channels averaged, at `sample_rate` in Hz: float32 `[samples]`, samples >= 1.

    Of a stored spectrogram `[frames, mel_bins]`, frames >= 1, whatever the rate: there are `LOG_MEL_RATE` a second.

    Raises:
        AudioError: it cannot be read, see `fastloaa.audio.load_audio`, `fastloaa.audio.load_log_mel` and
            `fastloaa.data.hdf5.read_hdf5`.
    """
    if is_log_mel(clip.path):
        return load_log_mel(clip.path, _frame(clip.start), None if clip.stop is None else _frame(clip.stop))
    if clip.track is None:
        return load_audio(clip.path, sample_rate, clip.start, clip.stop)
    return resample(hdf5.read_hdf5(clip.path, clip.track, clip.start, clip.stop), hdf5.RATE, sample_rate)


def clip_seconds(clip: Clip) -> float:
    """The clip's length in seconds; of a segment with both ends, the time between them.

    It comes from the header of its file, or by decoding it where the header does not say.

    Raises:
        AudioError: the header cannot be read, or the HDF5 file does not have this sound.
    """
    if clip.stop is not None:
        return clip.stop - clip.start
    if clip.track is not None:
        tracks = hdf5.hdf5_tracks(clip.path)
        if clip.track not in tracks:
            raise AudioError(f"{clip.path}: no sound {clip.track!r} in it; it has {len(tracks)} others")
        return tracks[clip.track] - clip.start
    if is_log_mel(clip.path):
        return log_mel_shape(clip.path)[0] / LOG_MEL_RATE - clip.start
    return sound_seconds(clip.path) - clip.start


def _frame(seconds: float) -> int:
    return round(seconds * LOG_MEL_RATE)
