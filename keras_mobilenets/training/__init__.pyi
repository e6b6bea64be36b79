from .checkpoint import Checkpoint as Checkpoint
from .classifier import build_classifier as build_classifier
from .fitting import fit as fit
from .fitting import fit_head as fit_head
from .fitting import freeze_normalization as freeze_normalization
