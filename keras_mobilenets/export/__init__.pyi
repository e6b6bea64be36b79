from .auditing import Audit as Audit
from .auditing import audit as audit
from .graph import read_tflite as read_tflite
from .parity import Parity as Parity
from .report import ExportReport as ExportReport
from .runner import TFLiteModel as TFLiteModel
from .tflite import export_tflite as export_tflite
