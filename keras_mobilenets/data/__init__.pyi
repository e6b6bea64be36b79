from .digits import Digits
from .folder import ImageFolder, Photos, scan_folder
from .grain_data import GrainData, load_grain
from .images import BrokenImage, read_image
from .load import ImageData, load
from .names import known_datasets

__all__ = [
    "BrokenImage",
    "Digits",
    "GrainData",
    "ImageData",
    "ImageFolder",
    "Photos",
    "known_datasets",
    "load",
    "load_grain",
    "read_image",
    "scan_folder",
]
