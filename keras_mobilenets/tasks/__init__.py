"""What a model is for: one object for each task, which training, export, diagnosis and the command line ask."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
