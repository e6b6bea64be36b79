from .box_folder import BoxFolder, BoxPhotos, scan_boxes
from .detection import load_detection
from .digits import Digits
from .folder import ImageFolder, Photos, scan_folder
from .grain_data import GrainData, load_grain
from .identities import load_identities, scan_identities
from .images import BrokenImage, read_image
from .load import ImageData, load
from .mask_folder import MaskFolder, scan_masks
from .mask_polygons import MaskPhotos
from .names import known_datasets
from .scattered import ScatteredDigits
from .segmentation import load_segmentation

__all__ = [
    "BoxFolder",
    "BoxPhotos",
    "BrokenImage",
    "Digits",
    "GrainData",
    "ImageData",
    "ImageFolder",
    "MaskFolder",
    "MaskPhotos",
    "Photos",
    "ScatteredDigits",
    "known_datasets",
    "load",
    "load_detection",
    "load_grain",
    "load_identities",
    "load_segmentation",
    "read_image",
    "scan_boxes",
    "scan_folder",
    "scan_identities",
    "scan_masks",
]
