from .digits import Digits
from .folder import ImageFolder, Photos, scan_folder
from .images import BrokenImage, read_image
from .load import ImageData, load
from .names import known_datasets

__all__ = [
    "BrokenImage",
    "Digits",
    "ImageData",
    "ImageFolder",
    "Photos",
    "known_datasets",
    "load",
    "read_image",
    "scan_folder",
]
