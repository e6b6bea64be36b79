from .audit import Audit as Audit
from .audit import audit as audit
from .file import TFLiteFile as TFLiteFile
from .file import read_tflite as read_tflite
from .runner import TFLiteModel as TFLiteModel
