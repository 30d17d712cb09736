"""Data sets: which clips, their classes, their splits, and batches of them."""

from fastloaa.data.audiofolder import load_audiofolder
from fastloaa.data.audioset import load_audioset
from fastloaa.data.clip import Clip, DataError
from fastloaa.data.clip_list import ClipList, ClipWriter
from fastloaa.data.clips import AudioSplits, stratified_split
from fastloaa.data.epic_sounds import load_epic_sounds
from fastloaa.data.esc50 import load_esc50
from fastloaa.data.folder import load_folder
from fastloaa.data.layouts import LAYOUTS, Layout, load_splits
from fastloaa.data.loader import Batch, BrokenFiles, ClipDataset, Sample, collate, start_worker
from fastloaa.data.log_mels import are_log_mels, measure_mel_bins
from fastloaa.data.reading import clip_seconds, read_clip
from fastloaa.data.speech_commands import load_speech_commands
from fastloaa.data.split_folders import load_split_folders
from fastloaa.data.split_table import load_split_table
from fastloaa.data.urbansound8k import load_urbansound8k
from fastloaa.data.words import COMMANDS, PRETRAIN_WORDS, Voice, draw_voices, synthesise_words

__all__ = [
    "COMMANDS",
    "LAYOUTS",
    "PRETRAIN_WORDS",
    "AudioSplits",
    "Batch",
    "BrokenFiles",
    "Clip",
    "ClipDataset",
    "ClipList",
    "ClipWriter",
    "DataError",
    "Layout",
    "Sample",
    "Voice",
    "are_log_mels",
    "clip_seconds",
    "collate",
    "draw_voices",
    "load_audiofolder",
    "load_audioset",
    "load_epic_sounds",
    "load_esc50",
    "load_folder",
    "load_speech_commands",
    "load_split_folders",
    "load_split_table",
    "load_splits",
    "load_urbansound8k",
    "measure_mel_bins",
    "read_clip",
    "start_worker",
    "stratified_split",
    "synthesise_words",
]
