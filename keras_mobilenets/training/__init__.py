"""Training a classifier by a published recipe or an own one, so that a run can stop anywhere and go on."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
