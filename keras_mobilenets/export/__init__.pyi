from .onnx import export_onnx as export_onnx
from .parity import Parity as Parity
from .report import ExportReport as ExportReport
from .report import ServingReport as ServingReport
from .saved_model import export_saved_model as export_saved_model
from .tflite import export_tflite as export_tflite
