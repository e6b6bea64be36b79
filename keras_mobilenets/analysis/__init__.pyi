from .profile import LayerProfile as LayerProfile
from .profile import ModelProfile as ModelProfile
from .profile import profile as profile
