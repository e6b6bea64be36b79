"""Networks fitted to a device: latency tables of integer blocks, NetAdapt, and a search over blocks."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
